"""Tuning: what is wanted (`goal.py`) and in which order to look for it (`strategies/`)."""
