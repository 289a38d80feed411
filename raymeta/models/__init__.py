"""What is adapted: each model is its losses on one task, pure functions of named parameters."""
