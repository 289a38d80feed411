"""Event stores: the record that every adapted state is derived from."""
