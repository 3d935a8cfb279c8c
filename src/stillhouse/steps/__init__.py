"""What the stages are made of: one file for what belongs together."""
