"""Any container of samples, read in chunks of columns."""
