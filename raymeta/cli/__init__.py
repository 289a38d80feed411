"""The `raymeta` command: one module a verb, and the frame that runs them."""
