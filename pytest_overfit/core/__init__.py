"""Plain types and promises: no framework and no pytest in here."""
