"""Worlds whose right answer is known, and small task sources: tasks to learn from without data."""
