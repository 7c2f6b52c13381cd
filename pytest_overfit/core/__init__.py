"""Plain types and the run itself: no framework and no pytest in here.

PYTEST_DONT_REWRITE
"""
