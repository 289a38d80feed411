"""The outer loop, and Ray Train around it."""
