"""The commands of `packnet`: their flags, and what they print."""
