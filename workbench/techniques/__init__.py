"""Techniques: what can be done to a model. The contract is `base.py`; every other file is one technique."""
