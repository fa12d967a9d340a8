"""Floor 7: may this caller have these bytes now? Stage, grants and holds joined in one place."""
