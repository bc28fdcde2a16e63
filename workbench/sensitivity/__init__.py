"""Sensitivity: how much each layer hurts when it is compressed, and what it costs in time; `probes/` has the scores."""
