"""The phases of a task, and the callback that drives them."""
