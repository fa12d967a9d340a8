"""Floor 2: work that happens later. Enqueued in the same transaction as the change it follows."""
