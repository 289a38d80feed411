"""What of a module each user gets a copy of: name selection, and small layers put into a module."""
