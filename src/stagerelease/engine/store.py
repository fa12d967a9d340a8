"""Where keys and values of a model stand, by slot, and the figures of its shape."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Shape:
    """The figures of a GPT-2 config that the computation needs."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int
    epsilon: float
    ends: frozenset[int]  # ids that end a text

    @property
    def token_bytes(self) -> int:
        """Return how many bytes of keys and values one token takes."""
        return 2 * self.layers * self.width * 4


_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)


class Store:
    """Keys and values of every slot: anonymous memory, taken page by page as it is written."""

    def __init__(self, shape: Shape, slots: int, device: torch.device) -> None:
        self.shape = shape
        self.slots = slots
        head = shape.width // shape.heads
        sizes = (shape.layers, 2, slots, shape.heads, shape.positions, head)
        self.memory: mmap.mmap | None = None
        if device.type == "cpu":
            count = torch.Size(sizes).numel()
            self.memory = mmap.mmap(-1, count * 4, flags=_PRIVATE)
            if hasattr(mmap, "MADV_NOHUGEPAGE"):
                self.memory.madvise(mmap.MADV_NOHUGEPAGE)  # a page more is not 2 MiB more
            pool = torch.frombuffer(self.memory, dtype=torch.float32, count=count).view(sizes)
        else:
            pool = torch.zeros(sizes, device=device)
        self.pool = pool
        self.rows = [layer.view(-1, head) for layer in pool]  # of each layer, keys then values
        # Of each layer, slot by slot and head by head: tokens × head.
        self.keys = [layer[0].view(-1, shape.positions, head) for layer in pool]
        self.values = [layer[1].view(-1, shape.positions, head) for layer in pool]
        # From the row of a token's first key to those of all its keys and values.
        keys = torch.arange(shape.heads) * shape.positions
        plane = slots * shape.heads * shape.positions
        self.offsets = torch.cat([keys, keys + plane])
        # The row of each slot's first value, head by head (slots × heads).
        self.first_values = torch.arange(plane, 2 * plane, shape.positions).view(slots, -1)

    def give_up(self, slot: int) -> None:
        """Return a slot's memory to the system."""
        if self.memory is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        size = self.shape.width * self.shape.positions * 4
        for plane in range(2 * self.shape.layers):
            start = (plane * self.slots + slot) * size
            inner = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages of this slot alone
            length = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE - inner
            if length > 0:
                self.memory.madvise(mmap.MADV_DONTNEED, inner, length)

    def wipe(self, slot: int, count: int) -> None:
        """Make the first ``count`` tokens of a slot zeros."""
        self.pool[:, :, slot, :, :count] = 0

    def copy(self, source: int, target: int, count: int) -> None:
        """Copy the first ``count`` tokens of one slot to another."""
        self.pool[:, :, target, :, :count] = self.pool[:, :, source, :, :count]
