"""What makes two values equal: canonical bytes, fingerprints, and names that last from run to run.

PYTEST_DONT_REWRITE
"""
