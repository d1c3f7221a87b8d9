"""Reports about a pack: owners and capacity, storage, quality."""
