"""Showing verdicts, from their plain form alone.

PYTEST_DONT_REWRITE
"""
