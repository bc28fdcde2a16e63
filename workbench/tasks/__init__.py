"""Tasks: a model, its data and a metric. The contract is `base.py`; every other file is one kind of task."""
