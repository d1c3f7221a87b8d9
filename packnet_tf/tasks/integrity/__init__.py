"""What a pack is checked by: networks, names, kinds of values in files, digests."""
