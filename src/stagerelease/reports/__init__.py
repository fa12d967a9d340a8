"""Floor 11: one document that tells the whole of a release."""
