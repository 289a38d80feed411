"""Logs as a program and a person can read them."""
