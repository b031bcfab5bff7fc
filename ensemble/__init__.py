"""What to do now: signals, blend, one strategy, its validation."""
