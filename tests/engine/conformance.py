"""What every adapter of the Engine port is held to, whatever computes behind it.

Subclass ``EngineConformance`` in a test module and say how a ``Subject`` is opened::

    class TestLocal(EngineConformance):
        @classmethod
        @asynccontextmanager
        async def open(cls): yield Subject(engine, checkpoint, …)

The subject is opened once per class, so that every test also sees what the others left behind;
after each, nothing may be running.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from stagerelease.engine.ports import (
    MOST_SEQUENCES,
    Admitted,
    Checkpoint,
    Ended,
    Engine,
    Event,
    Job,
    Piece,
    Prompt,
    Sampling,
    Token,
)
from stagerelease.kernel.errors import DomainError, Invalid, TooMany, Unavailable

GREEDY = Sampling(temperature=0)
PROMPT = "In a shocking finding, scientists discovered"
CLOSE = 1e-4


@dataclass
class Subject:
    """An engine and what a test must know about its model.

    ``lead_byte`` is a token that alone is no whole character. ``exact``: the adapter tells token
    numbers, ranks and how many sequences run; a foreign server does not. ``flood`` jobs at once are
    more than ``narrow`` (an engine of the same model with little room) takes.
    """

    engine: Engine
    checkpoint: Checkpoint
    context: int
    vocabulary: int
    lead_byte: int
    narrow: Callable[[], AbstractAsyncContextManager[Engine]]
    flood: int = 12
    exact: bool = True

    def job(self, *prompts: Prompt, **fields: Any) -> Job:
        return Job(self.checkpoint, prompts or (PROMPT,), **fields)


@dataclass
class Answer:
    """All events of a job, sorted by sequence."""

    admitted: Admitted
    texts: dict[int, str] = field(default_factory=dict)
    tokens: dict[int, list[Token]] = field(default_factory=dict)
    ends: dict[int, Ended] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)

    def told(self, index: int) -> int:
        """Return how many tokens were told of while they came."""
        return sum(piece.computed for piece in self.pieces if piece.index == index)


async def collect(engine: Engine, job: Job) -> Answer:
    """Run a job to its end, holding every event to the order the port promises."""
    answer: Answer | None = None
    async with aclosing(engine.generate(job)) as events:
        async for event in events:
            if answer is None:
                assert isinstance(event, Admitted), event
                assert len(event.prompt_tokens) == len(job.prompts)
                answer = Answer(event)
            else:
                _take(answer, event, job)
    assert answer is not None
    assert sorted(answer.ends) == list(range(len(job.prompts) * job.n))
    return answer


def _take(answer: Answer, event: Event, job: Job) -> None:
    assert not isinstance(event, Admitted), "a second Admitted"
    assert 0 <= event.index < len(job.prompts) * job.n
    assert event.index not in answer.ends, "an event after the end of its sequence"
    if isinstance(event, Ended):
        assert event.reason in ("stop", "length")
        assert 0 <= event.completion_tokens <= job.max_tokens
        if event.reason == "length":
            assert event.completion_tokens == job.max_tokens
        answer.ends[event.index] = event
        answer.texts.setdefault(event.index, "")
        answer.tokens.setdefault(event.index, [])
        return
    assert job.logprobs is not None or not event.tokens
    answer.pieces.append(event)
    answer.texts[event.index] = answer.texts.get(event.index, "") + event.text
    answer.tokens.setdefault(event.index, []).extend(event.tokens)


async def refusal(engine: Engine, job: Job) -> DomainError:
    """Return what a job is refused with, before any event."""
    with pytest.raises(DomainError) as refused:
        async with aclosing(engine.generate(job)) as events:
            async for event in events:
                pytest.fail(f"{event} came before the refusal")
    return refused.value


@dataclass
class Lab:
    """A loop with a subject in it."""

    runner: asyncio.Runner
    subject: Subject

    def run(self, experiment: Callable[[Subject], Coroutine[Any, Any, None]]) -> None:
        """Run an experiment; afterwards nothing may be left running."""
        self.runner.run(self._watched(experiment))

    async def _watched(self, experiment: Callable[[Subject], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.timeout(120):
            await experiment(self.subject)
            await idle(self.subject.engine)


async def idle(engine: Engine, *, within: float = 2.0) -> None:
    """Wait until nothing runs; fail when something still does after ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        state = await engine.state()
        if state.running == state.waiting == 0:
            return
        assert time.monotonic() < deadline, f"left behind: {state}"
        await asyncio.sleep(0.01)


class EngineConformance:
    """The suite. Nothing here looks inside an adapter."""

    @classmethod
    def open(cls) -> AbstractAsyncContextManager[Subject]:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def lab(cls) -> Iterator[Lab]:
        with asyncio.Runner() as runner:
            opened = cls.open()
            subject = runner.run(opened.__aenter__())
            yield Lab(runner, subject)
            runner.run(opened.__aexit__(None, None, None))

    # --- order, counts, seeds

    def test_events_come_in_order(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            answer = await collect(s.engine, s.job(max_tokens=12, sampling=GREEDY))
            assert answer.admitted.prompt_tokens[0] > 0
            assert answer.ends[0].completion_tokens > 0
            assert answer.texts[0]

        lab.run(experiment)

    def test_greedy_text_is_the_same_alone_and_among_others(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            alone = await collect(s.engine, s.job(max_tokens=16, sampling=GREEDY))
            jobs = [s.job(max_tokens=16, sampling=GREEDY)]
            jobs += [s.job(PROMPT[: 8 + k], max_tokens=5 + k, n=2) for k in range(5)]
            among = await asyncio.gather(*(collect(s.engine, job) for job in jobs))
            assert among[0].texts == alone.texts

        lab.run(experiment)

    def test_each_prompt_is_continued_n_ways(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            job = s.job("The first", "Another one", n=3, max_tokens=8, sampling=Sampling(seed=5))
            answer = await collect(s.engine, job)
            assert len(answer.ends) == 6
            assert len(set(answer.texts.values())) > 1

        lab.run(experiment)

    def test_a_seed_decides_whatever_else_is_computed(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            job = s.job(n=2, max_tokens=16, sampling=Sampling(seed=1234))
            alone = await collect(s.engine, job)
            others = [s.job(PROMPT[k:], max_tokens=4 + k) for k in range(6)]
            among, *_ = await asyncio.gather(*(collect(s.engine, j) for j in [job, *others]))
            assert among.texts == alone.texts
            assert alone.texts[0] != alone.texts[1]
            other = replace(job, sampling=Sampling(seed=1235))
            assert (await collect(s.engine, other)).texts != alone.texts

        lab.run(experiment)

    def test_unseeded_answers_differ(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            answers = [await collect(s.engine, s.job(max_tokens=24)) for _ in range(4)]
            assert len({a.texts[0] for a in answers}) > 1

        lab.run(experiment)

    # --- stop, echo, characters

    def test_a_stop_is_never_sent(self, lab: Lab) -> None:
        """Greedy text is cut by every two or three characters of itself, across any pieces."""

        async def experiment(s: Subject) -> None:
            job = s.job(max_tokens=24, sampling=GREEDY)
            whole = (await collect(s.engine, job)).texts[0]
            for at in range(1, len(whole) - 3, max(1, len(whole) // 8)):
                stop = whole[at : at + 3]
                cut = await collect(s.engine, replace(job, stop=[stop, "\x00never\x00"]))
                assert cut.texts[0] == whole[: whole.find(stop)]
                assert cut.ends[0].reason == "stop"

        lab.run(experiment)

    def test_tokens_are_told_while_their_text_is_held_back(self, lab: Lab) -> None:
        """Who is ended in the middle has used what was computed, sent or not."""

        async def experiment(s: Subject) -> None:
            job = s.job(max_tokens=16, sampling=GREEDY, echo=True)
            whole = (await collect(s.engine, job)).texts[0].removeprefix(PROMPT)
            for stop in ([], [whole + "\x00"]):  # the second holds back everything
                answer = await collect(s.engine, replace(job, stop=stop))
                count = answer.ends[0].completion_tokens
                if s.exact:
                    assert count - 1 <= answer.told(0) <= count  # an end needs no piece
                before = sum(piece.computed for piece in answer.pieces if not piece.text)
                assert not (stop and s.exact) or before >= count - 2

        lab.run(experiment)

    def test_what_only_begins_like_a_stop_is_sent(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            job = s.job(max_tokens=16, sampling=GREEDY)
            whole = (await collect(s.engine, job)).texts[0]
            almost = [whole[k : k + 2] + "\x00" for k in range(0, len(whole) - 2, 3)][:8]
            assert (await collect(s.engine, replace(job, stop=almost))).texts[0] == whole

        lab.run(experiment)

    def test_echo_sends_the_prompt_first(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            prompt = "Où est l'hôtel ? 🦄"
            plain = await collect(s.engine, s.job(prompt, max_tokens=6, sampling=GREEDY))
            job = s.job(prompt, max_tokens=6, sampling=GREEDY, echo=True, logprobs=1)
            answer = await collect(s.engine, job)
            assert answer.texts[0] == prompt + plain.texts[0]
            tokens = answer.tokens[0]
            assert tokens[0].logprob is None
            assert all(t.logprob is not None and t.logprob <= CLOSE for t in tokens[1:])

        lab.run(experiment)

    def test_echo_of_a_prompt_alone(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            job = s.job(max_tokens=0, echo=True, logprobs=0)
            answer = await collect(s.engine, job)
            assert answer.texts[0] == PROMPT
            assert answer.ends[0] == Ended(0, "length", 0)
            assert len(answer.tokens[0]) == answer.admitted.prompt_tokens[0]

        lab.run(experiment)

    def test_half_a_character_is_never_sent(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            forced = Sampling(temperature=0, logit_bias={s.lead_byte: 100.0})
            answer = await collect(s.engine, s.job(max_tokens=1, sampling=forced))
            assert answer.texts[0] == ""
            assert answer.ends[0].completion_tokens == 1
            mixed = s.job("« Où", n=8, max_tokens=48, sampling=Sampling(seed=3))
            for piece in (await collect(s.engine, mixed)).pieces:
                piece.text.encode()  # no lone surrogate

        lab.run(experiment)

    # --- figures

    def test_logprobs_are_of_the_model_and_add_up(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            sampling = Sampling(temperature=0.7, top_k=20, presence_penalty=0.5, seed=11)
            job = s.job(max_tokens=12, sampling=sampling, logprobs=5)
            answer = await collect(s.engine, job)
            tokens = answer.tokens[0]
            assert tokens
            for token in tokens:
                assert token.logprob is not None
                assert token.logprob <= CLOSE
                figures = [figure for _, _, figure in token.top]
                assert len(figures) >= 5
                assert figures == sorted(figures, reverse=True)
                assert math.fsum(math.exp(figure) for figure in figures) <= 1 + CLOSE

        lab.run(experiment)

    def test_the_likeliest_token_is_taken_at_temperature_0(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            job = s.job(max_tokens=12, sampling=GREEDY, logprobs=2)
            for token in (await collect(s.engine, job)).tokens[0]:
                assert token.logprob == pytest.approx(token.top[0][2], abs=CLOSE)

        lab.run(experiment)

    def test_score_and_generate_agree(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            job = s.job(max_tokens=10, sampling=GREEDY, logprobs=3, echo=True)
            tokens = (await collect(s.engine, job)).tokens[0]
            ids = tuple(t.id for t in tokens)
            [scored] = await s.engine.score(s.checkpoint, [ids], top=3)
            assert [t.id for t in scored] == list(ids)
            for told, again in zip(tokens[1:], scored[1:], strict=True):
                assert again.logprob == pytest.approx(told.logprob, abs=CLOSE)
            assert scored[0].logprob is None
            assert scored[0].rank is None

        if lab.subject.exact:
            lab.run(experiment)

    def test_ranks_count_what_is_likelier(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            texts: list[Prompt] = [PROMPT, "Another text, scored beside it."]
            both = await s.engine.score(s.checkpoint, texts, top=5)
            assert len(both) == 2
            for token in (token for text in both for token in text[1:]):
                assert token.rank is not None
                if token.rank < 5:
                    assert token.top[token.rank][2] == pytest.approx(token.logprob, abs=CLOSE)
            [alone] = await s.engine.score(s.checkpoint, texts[1:], top=5)
            for one, other in zip(alone[1:], both[1][1:], strict=True):
                assert one.logprob == pytest.approx(other.logprob, abs=CLOSE)

        if lab.subject.exact:
            lab.run(experiment)

    def test_bias_and_penalties_work(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            first = (
                await collect(s.engine, s.job(max_tokens=1, sampling=GREEDY, logprobs=2))
            ).tokens
            best, second = first[0][0].top[:2]
            banned = Sampling(temperature=0, logit_bias={best[0]: -100.0})
            again = await collect(s.engine, s.job(max_tokens=1, sampling=banned, logprobs=2))
            assert again.tokens[0][0].id == second[0]
            assert again.tokens[0][0].top[0] == pytest.approx(best)  # the model's own opinion
            penalised = Sampling(temperature=0, presence_penalty=100.0)
            job = s.job(max_tokens=8, sampling=penalised, logprobs=0)
            ids = [t.id for t in (await collect(s.engine, job)).tokens[0]]
            assert len(ids) == len(set(ids))

        if lab.subject.exact:
            lab.run(experiment)

    # --- refusals

    def test_what_does_not_fit_is_refused(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            long = (1,) * s.context
            for job in (s.job(long, max_tokens=1), s.job(max_tokens=s.context)):
                refused = await refusal(s.engine, job)
                assert isinstance(refused, Invalid)
                assert refused.reason == "engine.context"
            fits = s.job((1,) * (s.context - 4), max_tokens=4)
            assert (await collect(s.engine, fits)).ends[0].completion_tokens >= 1

        lab.run(experiment)

    def test_unknown_tokens_are_refused(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            bias = Sampling(logit_bias={s.vocabulary: 1.0})
            for job in (s.job((1, s.vocabulary)), s.job((-1,)), s.job(sampling=bias)):
                assert (await refusal(s.engine, job)).reason == "engine.token"
            with pytest.raises(Invalid, match=r".") as refused:
                await s.engine.score(s.checkpoint, [(s.vocabulary,)])
            assert refused.value.reason == "engine.token"

        if lab.subject.exact:
            lab.run(experiment)

    @pytest.mark.parametrize("prompts", [("",), ((),), (PROMPT, "")])
    def test_empty_prompts_are_refused(self, lab: Lab, prompts: Sequence[Prompt]) -> None:
        async def experiment(s: Subject) -> None:
            assert (await refusal(s.engine, s.job(*prompts))).reason == "engine.empty"

        lab.run(experiment)

    @pytest.mark.parametrize(
        "fields",
        [
            {"n": 0},
            {"n": MOST_SEQUENCES + 1},
            {"max_tokens": -1},
            {"logprobs": 21},
            {"logprobs": -1},
            {"stop": [""]},
            {"sampling": Sampling(temperature=math.nan)},
            {"sampling": Sampling(temperature=-0.1)},
            {"sampling": Sampling(temperature=math.inf)},
            {"sampling": Sampling(top_p=math.nan)},
            {"sampling": Sampling(top_p=1.5)},
            {"sampling": Sampling(top_k=-1)},
            {"sampling": Sampling(min_p=-1)},
            {"sampling": Sampling(repetition_penalty=0)},
            {"sampling": Sampling(presence_penalty=math.inf)},
            {"sampling": Sampling(logit_bias={1: math.nan})},
        ],
    )
    def test_figures_that_are_none_are_refused(self, lab: Lab, fields: dict[str, Any]) -> None:
        async def experiment(s: Subject) -> None:
            assert (await refusal(s.engine, s.job(**fields))).reason == "engine.parameter"

        lab.run(experiment)

    def test_files_that_are_no_model_are_refused(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            stranger = Checkpoint("f" * 40, "acme/none", {"README.md": "0" * 64})
            refused = await refusal(s.engine, Job(stranger, (PROMPT,)))
            assert isinstance(refused, Invalid)
            assert refused.reason == "engine.model"

        lab.run(experiment)

    def test_a_bad_job_harms_no_other(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            good = s.job(max_tokens=16, sampling=Sampling(seed=2))
            alone = await collect(s.engine, good)
            bad = [
                s.job((1,) * s.context, max_tokens=9),
                s.job(sampling=Sampling(temperature=math.nan)),
                s.job(""),
            ]
            among, *_ = await asyncio.gather(
                collect(s.engine, good), *(refusal(s.engine, job) for job in bad)
            )
            assert among.texts == alone.texts

        lab.run(experiment)

    # --- stopping, room, end

    def test_closing_stops_the_work(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            events = s.engine.generate(s.job(n=4, max_tokens=s.context // 2))
            async for event in events:
                if isinstance(event, Piece):
                    break
            await events.aclose()
            await idle(s.engine)

        lab.run(experiment)

    def test_cancelling_stops_the_work(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            job = s.job(n=4, max_tokens=s.context // 2)
            task = asyncio.ensure_future(collect(s.engine, job))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await idle(s.engine)

        lab.run(experiment)

    def test_who_does_not_read_holds_up_nobody(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            slow = s.engine.generate(s.job(n=4, max_tokens=s.context // 2))
            assert isinstance(await anext(slow), Admitted)
            good = s.job(max_tokens=16, sampling=Sampling(seed=8))
            async with asyncio.timeout(30):
                await collect(s.engine, good)
            await slow.aclose()

        lab.run(experiment)

    def test_too_many_at_once_are_refused_and_the_others_answered(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            async with s.narrow() as narrow:
                job = s.job(max_tokens=24, sampling=Sampling(seed=4))
                asked = (collect(narrow, job) for _ in range(s.flood))
                answers = await asyncio.gather(*asked, return_exceptions=True)
                refused = [a for a in answers if isinstance(a, BaseException)]
                assert all(isinstance(r, TooMany) and r.reason == "engine.full" for r in refused)
                assert 0 < len(refused) < s.flood
                assert all(r.retry_after > 0 for r in refused if isinstance(r, TooMany))
                assert len({a.texts[0] for a in answers if isinstance(a, Answer)}) == 1

        lab.run(experiment)

    def test_closing_an_engine_lets_what_runs_finish(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            async with s.narrow() as narrow:
                started = asyncio.Event()

                async def run() -> Ended | None:
                    ended = None
                    async for event in narrow.generate(s.job(max_tokens=24)):
                        started.set()
                        ended = event if isinstance(event, Ended) else ended
                    return ended

                task = asyncio.ensure_future(run())
                await started.wait()
                await narrow.close()
                assert await task is not None
                refused = await refusal(narrow, s.job(max_tokens=2))
                assert isinstance(refused, Unavailable)
                assert refused.reason == "engine.draining"

        if lab.subject.exact:
            lab.run(experiment)

    def test_state_tells_what_runs(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            events = s.engine.generate(s.job(n=3, max_tokens=s.context // 2))
            await anext(events)
            state = await s.engine.state()
            assert state.running + state.waiting == 3
            assert s.checkpoint.commit in {m.commit for m in state.models if m.state == "ready"}
            await events.aclose()

        if lab.subject.exact:
            lab.run(experiment)
