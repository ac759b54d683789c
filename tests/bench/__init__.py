"""Measurements against the project's own promises: ``python -m tests.bench [name…]``."""
