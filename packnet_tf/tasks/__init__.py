"""What a pack holds: its tasks, their models, and the file."""
