"""Above the faces: histories told through the same use cases, with the clock of their time."""
