"""Probes: per-layer sensitivity metrics. The contract is `base.py`; every other file is one probe."""
