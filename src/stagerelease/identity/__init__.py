"""Floor 3: people, organisations, roles, tokens, and what each role may do."""
