"""Runs the processes of one installation together, and makes a local CA for trying HTTPS."""
