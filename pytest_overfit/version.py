"""The version, in one place: the build and every written file read it here."""

__version__ = "0.1.0"
