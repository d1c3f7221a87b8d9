"""The command line, `packnet`: flags and printing; the work is done by the library."""
