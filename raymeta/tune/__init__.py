"""Searching how the inner loop should be taken, on Ray Tune: the same training, other values."""
