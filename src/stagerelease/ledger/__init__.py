"""Floor 3: the tamper-evident log. Appends inside the caller's transaction; proves afterwards."""
