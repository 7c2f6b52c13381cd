"""The quantities that can be bounded, on one list.

PYTEST_DONT_REWRITE
"""
