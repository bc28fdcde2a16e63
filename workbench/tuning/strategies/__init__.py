"""Strategies: generators of recipes. The contract is `base.py`; every other file is one strategy."""
