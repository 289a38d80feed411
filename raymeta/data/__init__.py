"""From a shop's logs to tasks: one user, one task."""
