"""Numbers that probes share, from numpy arrays and floats alone: no framework in here.

PYTEST_DONT_REWRITE
"""
