"""Folds and seeds on Ray: cells that are cached, resumable, and pooled into one report."""
