"""Any container of samples, read in chunks of columns.

PYTEST_DONT_REWRITE
"""
