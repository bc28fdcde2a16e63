"""Sensitivity: how much each layer hurts. The probes are in `probes/`."""
