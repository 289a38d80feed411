"""Load on a running endpoint: requests at given times, and how long their answers took."""
