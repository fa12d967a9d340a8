"""The face that unmodified Hub clients speak to."""
