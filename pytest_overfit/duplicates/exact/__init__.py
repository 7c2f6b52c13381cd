"""Exact copies: in memory, from fingerprints, in one pass over streams, and in an executor."""
