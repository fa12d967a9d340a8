"""Whole-system tests talk to a live server."""

from live import big_file, box, server, world, world_box, world_template

__all__ = ["big_file", "box", "server", "world", "world_box", "world_template"]
