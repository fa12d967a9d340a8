"""Text from checkpoints: a port, and what computes behind it."""
