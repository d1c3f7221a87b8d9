"""Running exported files and comparing their answers."""
