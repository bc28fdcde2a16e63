"""Code that an exported folder carries: it imports nothing of this package, and is copied as text, never imported.

`main.py` becomes `run.py`; the file named after the backend becomes `loader.py` beside it.
"""
