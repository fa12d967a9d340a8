"""The HTTP faces: translate in, call one use case, translate back. No rule lives here."""
