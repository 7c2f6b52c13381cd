"""Shared fixtures; `pytester` runs pytest from pytest."""

pytest_plugins = "pytester"
