"""Backends: runtimes that execute a model. The contract is `base.py`; every other file is one runtime."""
