"""Applications for Ray Serve's own tools (`serve run`, `serve deploy`)."""
