"""Numbers that probes share, from numpy arrays and floats alone: no framework in here."""
