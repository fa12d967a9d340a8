"""Floor 10: who is told what, by mail, webhook or feed."""
