"""What a model predicts, read off its outputs, and how well that agrees with the targets."""
