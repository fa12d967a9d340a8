"""Floor 6: agreements, signatures, and the grants that rest on them."""
