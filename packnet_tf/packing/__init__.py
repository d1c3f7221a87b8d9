"""A packed weight, and how the layers of a trunk get one."""
