"""Packs of image tasks: what `packnet train` and `packnet demo` do."""
