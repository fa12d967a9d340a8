"""The next token: its distribution is the one asked for, and its draw is nobody else's business."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from stagerelease.engine.ports import Sampling
from stagerelease.engine.sampling import Chooser, choose, figures

SIZE = 40
DRAWS = 20_000
FEWER = settings(max_examples=max(settings().max_examples // 2, 20))


def logits_of(seed: int, size: int = SIZE, spread: float = 1.5) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


def chooser(
    sampling: Sampling, *, index: int = 0, prompt: Sequence[int] = (), answer: Sequence[int] = ()
) -> Chooser:
    made = Chooser(sampling, index=index, prompt=prompt)
    made.answer.update(answer)
    return made


def exact(
    logits: Tensor, s: Sampling, prompt: Sequence[int] = (), answer: Sequence[int] = ()
) -> np.ndarray[Any, Any]:
    """The distribution by the words of ``Sampling``, in double precision and by plain loops."""
    x = logits.double().numpy().copy()
    for token in {*prompt, *answer}:
        x[token] = (
            x[token] / s.repetition_penalty if x[token] > 0 else x[token] * s.repetition_penalty
        )
    for token in answer:
        x[token] -= s.frequency_penalty
    for token in set(answer):
        x[token] -= s.presence_penalty
    for token, bias in s.logit_bias.items():
        x[token] += bias
    x = x / s.temperature
    order = sorted(range(len(x)), key=lambda i: -x[i])
    if s.top_k:
        order = order[: s.top_k]
    odds = np.exp(x[order] - x[order[0]])
    odds /= odds.sum()
    kept, before = [], 0.0
    for token, share in zip(order, odds, strict=True):
        if before < s.top_p:
            kept.append((token, share))
        before += share
    kept = [(token, share) for token, share in kept if share >= s.min_p * odds[0]]
    found = np.zeros(len(x))
    for token, share in kept:
        found[token] = share
    return found / found.sum()


def draws(
    logits: Tensor, s: Sampling, count: int, prompt: Sequence[int] = (), answer: Sequence[int] = ()
) -> list[int]:
    """One draw at each of many positions."""
    one = chooser(s, prompt=prompt, answer=answer)
    rows, found = logits.expand(500, -1), []
    for first in range(0, count, 500):
        found += choose(rows, [one] * 500, range(first, first + 500))
    return found


def chi_square(found: list[int], odds: np.ndarray[Any, Any]) -> float:
    """How likely it is that counts are as far from ``odds`` by chance (Pearson)."""
    expected = odds * len(found)
    counts = np.bincount(found, minlength=len(odds)).astype(float)
    assert counts[odds == 0].sum() == 0
    big = expected >= 5
    observed = [*counts[big], counts[~big].sum()]
    wanted = [*expected[big], expected[~big].sum()]
    if wanted[-1] == 0:
        observed.pop(), wanted.pop()
    statistic = sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True))
    half = torch.tensor([(len(wanted) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


CASES: dict[str, Sampling] = {
    "plain": Sampling(),
    "cold": Sampling(temperature=0.6),
    "hot": Sampling(temperature=1.7),
    "top_k": Sampling(top_k=7),
    "top_p": Sampling(top_p=0.8),
    "min_p": Sampling(min_p=0.1),
    "penalties and bias": Sampling(
        temperature=0.9,
        repetition_penalty=1.3,
        presence_penalty=0.4,
        frequency_penalty=0.3,
        logit_bias={2: 2.0, 11: -3.0},
    ),
    "everything": Sampling(
        temperature=1.2,
        top_k=20,
        top_p=0.9,
        min_p=0.03,
        repetition_penalty=1.2,
        presence_penalty=-0.3,
        frequency_penalty=0.2,
        logit_bias={5: 1.0, 30: -100.0},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_distribution_asked_for(name: str) -> None:
    s = replace(CASES[name], seed=20_260)
    logits = logits_of(3)
    prompt, answer = [1, 2, 3, 8, 20], [3, 3, 9, 12, 12, 12]
    odds = exact(logits, s, prompt, answer)
    assert chi_square(draws(logits, s, DRAWS, prompt, answer), odds) > 1e-4


def test_a_nucleus_wider_than_the_first_look_is_whole() -> None:
    """Over a flat vocabulary top_p reaches further than the tokens that are sorted at first."""
    logits = logits_of(1, size=3000, spread=0.3)
    s = Sampling(top_p=0.9, seed=1)
    odds = exact(logits, s)
    assert (odds > 0).sum() > 2000
    found = draws(logits, s, 1500)
    assert all(odds[token] > 0 for token in found)
    # Uniform if looked at by cumulated odds, likeliest first.
    order = np.argsort(-odds, kind="stable")
    share = dict(zip(order.tolist(), np.cumsum(odds[order]).tolist(), strict=True))
    assert chi_square([int(share[t] * 19.999) for t in found], np.full(20, 0.05)) > 1e-4


# --- seeds ----------------------------------------------------------------------------------------


def company(count: int) -> tuple[Tensor, list[Chooser], list[int]]:
    """Rows of every kind, each with its seed, number and position."""
    kinds = [
        Sampling(temperature=0),
        Sampling(),
        Sampling(temperature=0.7),
        Sampling(top_k=5),
        Sampling(top_p=0.7, temperature=1.3),
        Sampling(min_p=0.05),
        Sampling(repetition_penalty=1.5, presence_penalty=1, logit_bias={3: 4.0}),
    ]
    rows = torch.stack([logits_of(100 + i, size=1000) for i in range(count)])
    choosers = [
        chooser(replace(kinds[i % len(kinds)], seed=i * 7), index=i % 4, prompt=[i], answer=[i, i])
        for i in range(count)
    ]
    return rows, choosers, [(i * 13) % 50 for i in range(count)]


def test_a_draw_is_the_same_alone_and_in_any_company() -> None:
    rows, choosers, positions = company(32)
    together = choose(rows, choosers, positions)
    alone = [
        choose(rows[i : i + 1], [choosers[i]], [positions[i]])[0] for i in range(len(choosers))
    ]
    assert alone == together
    for seed in range(5):
        order = random.Random(seed).sample(range(32), 32 - 3 * seed)
        mixed = choose(rows[order], [choosers[i] for i in order], [positions[i] for i in order])
        assert mixed == [together[i] for i in order]


def test_draws_do_not_depend_on_what_was_drawn_before() -> None:
    logits, s = logits_of(5), Sampling(seed=9)
    forwards = draws(logits, s, 500)
    one = chooser(s)
    backwards = [choose(logits[None], [one], [at])[0] for at in reversed(range(500))]
    assert forwards == backwards[::-1]


def test_seeds_numbers_and_positions_all_count() -> None:
    def first(seed: int, index: int, position: int) -> float:
        return chooser(Sampling(seed=seed), index=index).draw(position)

    several = {first(s, i, p) for s in (0, 1, 2) for i in (0, 1, 2) for p in (0, 1, 2)}
    assert len(several) == 27
    assert all(0 <= draw < 1 for draw in several)


@pytest.mark.parametrize("base", [-1, 2**31, 2**53, 2**63, 2**64 - 5, 2**64 + 7, -(2**70)])
def test_seeds_of_any_size_are_taken_exactly(base: int) -> None:
    """A double would hold these no longer, and neighbours would draw the same."""
    drawn = [chooser(Sampling(seed=base - i)).draw(0) for i in range(20)]
    assert len(set(drawn)) == 20
    assert drawn == [chooser(Sampling(seed=base - i)).draw(0) for i in range(20)]


def test_without_a_seed_no_two_sequences_draw_alike() -> None:
    assert len({chooser(Sampling()).draw(0) for _ in range(50)}) == 50


# --- against transformers -------------------------------------------------------------------------


def support(logits: Tensor, s: Sampling) -> set[int]:
    """The tokens that can be drawn at all: found by sweeping the draw itself."""

    class Swept(Chooser):
        def draw(self, position: int) -> float:
            return (position + 0.5) / sweep

    sweep = 2000
    one = Swept(s, index=0, prompt=())
    return set(choose(logits.expand(sweep, -1), [one] * sweep, range(sweep)))


@pytest.mark.parametrize(
    ("given_sampling", "warper"),
    [
        (Sampling(top_k=1), TopKLogitsWarper(1)),
        (Sampling(top_k=6), TopKLogitsWarper(6)),
        (Sampling(top_k=400), TopKLogitsWarper(400)),
        (Sampling(top_p=0.05), TopPLogitsWarper(0.05)),
        (Sampling(top_p=0.6), TopPLogitsWarper(0.6)),
        (Sampling(top_p=0.93), TopPLogitsWarper(0.93)),
        (Sampling(min_p=0.2), MinPLogitsWarper(0.2)),
        (Sampling(min_p=0.9), MinPLogitsWarper(0.9)),
    ],
    ids=lambda one: str(one) if isinstance(one, Sampling) else type(one).__name__,
)
def test_the_same_tokens_are_left_as_by_transformers(given_sampling: Sampling, warper: Any) -> None:
    for seed in range(2):
        logits = logits_of(seed, size=16)
        ids = torch.zeros(1, 1, dtype=torch.int64)
        left = torch.isfinite(warper(ids, logits[None].clone())[0]).nonzero().flatten().tolist()
        likely = [t for t in left if torch.softmax(logits, -1)[t] > 2e-3]
        found = support(logits, given_sampling)
        assert set(likely) <= found <= set(left)


@FEWER
@given(
    penalty=st.floats(0.3, 3),
    seed=st.integers(0, 1000),
    seen=st.lists(st.integers(0, SIZE - 1), min_size=2, max_size=30),
    cut=st.integers(0, 30),
)
def test_repetition_is_weighed_as_by_transformers(
    penalty: float, seed: int, seen: list[int], cut: int
) -> None:
    logits = logits_of(seed)
    one = chooser(Sampling(repetition_penalty=penalty), prompt=seen[:cut], answer=seen[cut:])
    want = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), logits[None].clone())[0]
    before = logits.clone()
    assert torch.allclose(one.weigh(logits), want, rtol=1e-6, atol=0)
    assert torch.equal(logits, before)  # what is told of a token is the model's own


def test_penalties_count_the_answer_alone_and_each_time() -> None:
    logits = torch.zeros(6)
    s = Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    one = chooser(s, prompt=[1, 1, 2], answer=[2, 3, 3, 3])
    assert one.weigh(logits).tolist() == [0, 0, -0.75, -1.25, 0, 0]


def test_bias_forces_and_forbids() -> None:
    logits = logits_of(8)
    best = int(logits.argmax())
    for s in (Sampling(temperature=0), Sampling(), Sampling(top_p=0.9)):
        forced = chooser(replace(s, logit_bias={7: 100}, seed=1))
        forbidden = chooser(replace(s, logit_bias={best: -100.0}, seed=1))
        never = chooser(replace(s, logit_bias={best: -math.inf}, seed=1))
        for at in range(50):
            rows = logits.expand(3, -1)
            a, b, c = choose(rows, [forced, forbidden, never], [at, at, at])
            assert a == 7
            assert best not in (b, c)
            assert b >= 0 <= c


# --- extremes -------------------------------------------------------------------------------------

EXTREMES = [
    Sampling(temperature=1e-6),
    Sampling(temperature=1e-4),
    Sampling(temperature=1e30),
    Sampling(temperature=math.inf),
    Sampling(top_p=0.0),
    Sampling(top_p=1e-9),
    Sampling(top_p=math.nan),
    Sampling(min_p=1.0),
    Sampling(min_p=5.0),
    Sampling(top_k=10**9),
    Sampling(top_k=-1, top_p=0.5),
    Sampling(top_k=1, top_p=0.0, min_p=1.0),
    Sampling(repetition_penalty=1e-30),
    Sampling(repetition_penalty=1e30),
    Sampling(frequency_penalty=1e30),
    Sampling(logit_bias={0: 1e38, 1: -1e38}),
]


@pytest.mark.parametrize("s", EXTREMES, ids=str)
def test_extreme_values_still_give_a_token(s: Sampling) -> None:
    logits = logits_of(2)
    found = draws(logits, replace(s, seed=4), 500, prompt=[1, 2], answer=[2])
    assert all(0 <= token < SIZE for token in found)


@pytest.mark.parametrize(
    "s", [Sampling(top_p=0.0), Sampling(min_p=2.0), Sampling(top_k=1), Sampling(temperature=1e-6)]
)
def test_the_likeliest_token_always_stays(s: Sampling) -> None:
    logits = logits_of(2)
    assert set(draws(logits, replace(s, seed=4), 500)) == {int(logits.argmax())}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("s", [Sampling(temperature=0), Sampling(), Sampling(top_p=0.5)], ids=str)
def test_a_row_of_no_numbers_is_told_and_harms_nobody(bad: float, s: Sampling) -> None:
    rows, choosers, positions = company(9)
    alone = choose(rows, choosers, positions)
    spoilt = torch.cat([rows[:4], torch.full((1, 1000), bad), rows[4:]])
    spoilt[4, :500] = 0.0
    found = choose(
        spoilt,
        [*choosers[:4], chooser(replace(s, seed=1)), *choosers[4:]],
        [*positions[:4], 3, *positions[4:]],
    )
    assert found[4] == -1
    assert found[:4] + found[5:] == alone


@pytest.mark.parametrize("s", [Sampling(temperature=0), Sampling(), Sampling(top_p=0.5)], ids=str)
def test_nothing_left_to_choose_is_told(s: Sampling) -> None:
    nothing = torch.full((1, SIZE), -math.inf)
    assert choose(nothing, [chooser(replace(s, seed=1))], [0]) == [-1]
    one = nothing.clone()
    one[0, 5] = -3.0
    assert choose(one, [chooser(replace(s, seed=1))], [0]) == [5]


# --- figures --------------------------------------------------------------------------------------


@FEWER
@given(seed=st.integers(0, 10_000), spread=st.floats(0.01, 30), token=st.integers(0, 999))
def test_figures_are_those_of_the_models_own_distribution(
    seed: int, spread: float, token: int
) -> None:
    row = logits_of(seed, size=1000, spread=spread)
    want = torch.log_softmax(row.double(), -1)
    own, rank, likely = figures(row, token, top=20, rank=True)
    assert own == pytest.approx(float(want[token]), abs=1e-4)
    order = torch.sort(row, descending=True, stable=True).indices.tolist()
    assert rank == order.index(token)
    assert [i for i, _ in likely] == order[:20]
    assert [value for _, value in likely] == pytest.approx(want[order[:20]].tolist(), abs=1e-4)


def test_figures_of_a_small_vocabulary_are_all_there_is() -> None:
    own, rank, likely = figures(torch.zeros(3), 1, top=20)
    assert (own, rank, len(likely)) == (pytest.approx(-math.log(3)), None, 3)
