"""The version, in one place: the build and every written file read it here.

PYTEST_DONT_REWRITE
"""

__version__ = "0.1.0"
