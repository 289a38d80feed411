"""The HTTP routes, by what they are about; each calls one method of a part of `service`."""
