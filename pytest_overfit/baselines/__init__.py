"""Numbers kept in files and compared with those of a later run: baselines and calibrations."""
