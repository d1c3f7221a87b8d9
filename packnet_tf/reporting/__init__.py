"""Who owns how much, in numbers, text and pictures."""
