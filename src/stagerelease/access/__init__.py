"""Floor 9: requests for access, and the people who decide them."""
