"""What a pack is checked by: digests of what tasks own, kinds of values in files, and names."""
