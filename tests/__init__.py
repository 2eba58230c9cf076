"""Tests, in the rooms of the package; what several of them share is in `support` and `conftest.py`."""
