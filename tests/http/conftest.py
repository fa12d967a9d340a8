"""HTTP tests talk to a live server."""

from live import box, server

__all__ = ["box", "server"]
