"""What makes two values equal: canonical bytes, fingerprints, and names that last from run to run."""
