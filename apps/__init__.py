"""The command line `packnet`, and the comparison of packing with other methods."""
