"""Many seeds of one small model trained at once, with the numbers of training one after the other.

PYTEST_DONT_REWRITE
"""
