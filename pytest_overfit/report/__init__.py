"""Showing verdicts, from their plain form alone."""
