"""Attacks on packs and exported files; `python -m tests.torture --help`."""
