"""Training objectives: flow matching, and GRPO on rewards."""
