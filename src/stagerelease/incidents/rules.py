"""Rules of this slice. Pure."""
