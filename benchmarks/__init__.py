"""Measurements: README.md lists the scripts, which are run from the root of the repository with `python -m`."""
