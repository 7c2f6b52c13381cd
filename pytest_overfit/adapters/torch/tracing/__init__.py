"""What a pass calls, seen function by function: which layers and activations, and what was computed from what."""
