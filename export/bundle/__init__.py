"""Files of several tasks that share their weights."""
