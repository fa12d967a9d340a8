"""What a piece of evidence must say, and what may become of it. Pure."""
