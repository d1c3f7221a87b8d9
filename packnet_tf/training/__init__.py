"""The phases of a task's training, and the callback that drives them."""
