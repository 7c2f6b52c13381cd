"""The quantities that can be bounded, on one list."""
