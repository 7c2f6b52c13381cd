"""What a model predicts, read off its outputs, and how well that agrees with the targets.

PYTEST_DONT_REWRITE
"""
