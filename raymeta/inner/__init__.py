"""The inner loop: one task's gradient steps, lifted over a batch of tasks."""
