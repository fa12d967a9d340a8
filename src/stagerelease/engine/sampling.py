"""Choosing the next token of each row. A row's choice depends on its logits and its own draw alone.

The draw comes from a counter-based generator (Philox, Salmon et al. 2011) whose key is the seed and
the sequence's number and whose counter is the token's position: no state, no order, no company.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from stagerelease.engine.ports import Sampling

GREEDY_BELOW = 1e-5
"""Temperatures under this are taken as 0: dividing by them would leave nothing else likely."""
_WORD = 2**64 - 1
_NUCLEUS = 512
"""How many of the likeliest tokens are looked at first for top_p, before all are sorted."""


class NoNumberError(ArithmeticError):
    """A figure that is to be told is no number."""


class Chooser:
    """How one sequence chooses, and what it must remember for it."""

    def __init__(self, sampling: Sampling, *, index: int, prompt: Sequence[int]) -> None:
        self.sampling = sampling
        self.seed = secrets.randbits(64) if sampling.seed is None else sampling.seed & _WORD
        self.index = index
        self.prompt = frozenset(prompt) if sampling.repetition_penalty != 1 else frozenset()
        self.answer: Counter[int] = Counter()

    @property
    def greedy(self) -> bool:
        """Tell whether the likeliest token is taken."""
        return self.sampling.temperature < GREEDY_BELOW

    @property
    def filters(self) -> bool:
        """Tell whether some tokens are ruled out before the draw."""
        s = self.sampling
        return s.top_k > 0 or s.top_p < 1 or s.min_p > 0

    def draw(self, position: int) -> float:
        """Return the uniform draw in [0, 1) of the token at ``position``."""
        # As an array: numpy would make a list that holds a large seed one of doubles, and round it.
        key = np.array([self.seed, self.index], dtype=np.uint64)
        generator = np.random.Philox(key=key, counter=[position, 0, 0, 0])
        return float(np.random.Generator(generator).random())

    def weigh(self, row: Tensor) -> Tensor:
        """Return the logits after penalties and bias; ``row`` itself stays as it is."""
        s = self.sampling
        seen = self.prompt | self.answer.keys() if s.repetition_penalty != 1 else frozenset()
        counted = bool(self.answer) and (s.presence_penalty != 0 or s.frequency_penalty != 0)
        if not seen and not counted and not s.logit_bias:
            return row
        row = row.clone()
        if seen:
            ids = torch.tensor(sorted(seen), device=row.device)
            had = row[ids]
            by = s.repetition_penalty
            row[ids] = torch.where(had > 0, had / by, had * by)
        if counted:
            ids = torch.tensor(list(self.answer), device=row.device)
            counts = torch.tensor(list(self.answer.values()), device=row.device)
            row[ids] -= s.presence_penalty + s.frequency_penalty * counts
        if s.logit_bias:
            ids = torch.tensor(list(s.logit_bias), device=row.device)
            row[ids] += torch.tensor(list(s.logit_bias.values()), device=row.device)
        return row


def choose(
    logits: Iterable[Tensor], choosers: Sequence[Chooser], positions: Sequence[int]
) -> list[int]:
    """Return the next token of each row of ``logits`` (vocabulary, fp32).

    A row that holds no finite maximum (weights that are no numbers) gets -1.
    """
    weighed = [chooser.weigh(row) for chooser, row in zip(choosers, logits, strict=True)]
    chosen = [-1] * len(choosers)
    greedy = [i for i, c in enumerate(choosers) if c.greedy]
    plain = [i for i, c in enumerate(choosers) if not c.greedy and not c.filters]
    for i in greedy:  # row by row: stacking them would copy them all
        at = int(weighed[i].argmax())
        chosen[i] = at if math.isfinite(weighed[i][at]) else -1
    if plain:
        rows = torch.stack([weighed[i] / choosers[i].sampling.temperature for i in plain])
        draws = [choosers[i].draw(positions[i]) for i in plain]
        for i, token in zip(plain, _by_cumulation(rows, draws), strict=True):
            chosen[i] = token
    for i, c in enumerate(choosers):
        if not c.greedy and c.filters:
            chosen[i] = _among_likely(weighed[i], c.sampling, c.draw(positions[i]))
    return chosen


def _by_cumulation(rows: Tensor, draws: Sequence[float]) -> list[int]:
    """Draw one token of each row by its cumulative distribution, in double precision."""
    cumulated = torch.softmax(rows, -1).double().cumsum(-1)
    total = cumulated[:, -1:]
    wanted = torch.tensor(draws, dtype=torch.float64, device=rows.device)[:, None] * total
    tokens = torch.searchsorted(cumulated, wanted, right=True).flatten().tolist()
    finite = torch.isfinite(total).flatten().tolist()
    last = rows.shape[1] - 1
    return [min(t, last) if good else -1 for t, good in zip(tokens, finite, strict=True)]


def _among_likely(row: Tensor, sampling: Sampling, draw: float) -> int:
    """Draw one token among those that top_k, top_p and min_p leave, likeliest first."""
    row = row / sampling.temperature
    size = len(row)
    count = min(sampling.top_k, size) if sampling.top_k > 0 else size
    total = torch.logsumexp(torch.topk(row, count).values if count < size else row, -1)
    if not bool(torch.isfinite(total)):
        return -1
    look = count if count < size else min(_NUCLEUS, size)
    while True:
        values, ids = torch.topk(row, look)
        odds = torch.exp((values - total).double())
        before = odds.cumsum(0) - odds
        # The likeliest token always stays (Holtzman et al. 2020, §3.1).
        keep = before < sampling.top_p
        keep &= odds >= sampling.min_p * odds[0]
        keep[0] = True
        if look == count or not bool(keep[-1]):
            break
        look = min(look * 8, count)  # the nucleus may reach further than was looked
    left = odds * keep
    cumulated = left.cumsum(0)
    at = int(torch.searchsorted(cumulated, draw * cumulated[-1], right=True))
    return int(ids[min(at, look - 1)])


def figures(
    row: Tensor, token: int, *, top: int, rank: bool = False
) -> tuple[float, int | None, list[tuple[int, float]]]:
    """Return a token's natural-log probability under ``row``, its rank, and the likeliest tokens.

    Rank 0 is the likeliest; it is counted only when asked for.

    Raises:
        NoNumberError: the model gives none; nothing of the kind can be told.
    """
    total = torch.logsumexp(row, -1)
    own = row[token]
    place = int((row > own).sum()) if rank else None
    likely: list[tuple[int, float]] = []
    if top:
        values, ids = torch.topk(row, min(top, len(row)))
        likely = list(zip(ids.tolist(), (values - total).tolist(), strict=True))
    told = float(own - total)
    if not all(map(math.isfinite, [told, *(value for _, value in likely)])):
        raise NoNumberError
    return told, place, likely
