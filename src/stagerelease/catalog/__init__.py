"""Floor 4: model families, variants, immutable revisions and content-addressed files."""
