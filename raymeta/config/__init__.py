"""Typed settings: values only. `build` is the one table that turns names into objects."""
