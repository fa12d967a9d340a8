"""Floor 9: a permitted request becomes a recorded delivery."""
