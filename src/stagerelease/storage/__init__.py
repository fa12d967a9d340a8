"""Floor 2: where bytes rest, named by their SHA-256. Knows nothing of models, grants or HTTP."""
