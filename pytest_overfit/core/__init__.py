"""Plain types and promises: no framework and no pytest in here.

PYTEST_DONT_REWRITE
"""
