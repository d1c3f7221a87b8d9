"""What `packnet bench` measures: each point side by side with what it is compared with."""
