"""Which samples of one split also occur in another: exactly, nearly, as a window, by group, or out of time order."""
