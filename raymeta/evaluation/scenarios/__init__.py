"""Scenarios: how a user's history becomes a task, is validated, evaluated and reported."""
