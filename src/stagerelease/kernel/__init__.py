"""Floor 0: words every slice shares. Imports nothing of ours and does no I/O."""
