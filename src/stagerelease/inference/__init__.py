"""Use before weights: who may ask a model for text, how much, and what is kept of it."""
