"""The local engine over a real store: its promises to one caller, whatever others do."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from miniatures import (
    END,
    LABELS,
    Answered,
    Script,
    ask,
    directory,
    held_out_ids,
    load,
    options,
    play,
    prompts,
    put,
    with_engine,
)
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from stagerelease.engine import shelf as shelf_module
from stagerelease.engine.batching import CHUNK
from stagerelease.engine.linear import Dtype
from stagerelease.engine.local import LocalEngine
from stagerelease.engine.ports import Admitted, Checkpoint, Ended, Job, Piece, Sampling
from stagerelease.engine.shelf import Room, Shelf
from stagerelease.kernel.errors import DomainError, Invalid, TooMany, Unavailable
from stagerelease.storage.local import LocalBlobStore

GREEDY = Sampling(temperature=0)
TEXT = "The committee met on Tuesday to"


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> LocalBlobStore:
    return LocalBlobStore(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def minis(blobs: LocalBlobStore) -> dict[str, Checkpoint]:
    return {label: put(blobs, directory(label)) for label in LABELS}


@pytest.fixture(scope="module")
def mini(minis: dict[str, Checkpoint]) -> Checkpoint:
    return minis["124M"]


def files(label: str = "124M") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory(label).iterdir()}


def bent(
    change: Callable[[dict[str, torch.Tensor]], None] | None = None, **config: Any
) -> dict[str, bytes]:
    """The smallest miniature's files with other tensors or another config."""
    made = files()
    if change is not None:
        tensors = load_tensors(made["model.safetensors"])
        change(tensors)
        made["model.safetensors"] = save_tensors(tensors)
    made["config.json"] = json.dumps(json.loads(made["config.json"]) | config).encode()
    return made


async def refusal_of(engine: LocalEngine, job: Job) -> DomainError:
    with pytest.raises(DomainError) as refusal:
        await ask(engine, job)
    return refusal.value


async def idle(engine: LocalEngine) -> None:
    """Wait until nothing is computed any more."""
    for _ in range(400):
        state = await engine.state()
        if not state.running and not state.waiting:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the engine goes on")


async def started(engine: LocalEngine, task: asyncio.Task[Any]) -> None:
    """Wait until what a task asks for is being computed."""
    while not (await engine.state()).running:
        assert not task.done()
        await asyncio.sleep(0.001)


# --- seeds ----------------------------------------------------------------------------------------


def seeded(checkpoint: Checkpoint, count: int = 12) -> list[Job]:
    """Jobs of every kind, some of which share long beginnings of prompts."""
    ways = [
        Sampling(temperature=0.9),
        Sampling(top_p=0.9),
        Sampling(top_k=20, repetition_penalty=1.2),
        Sampling(temperature=0),
        Sampling(min_p=0.05, frequency_penalty=0.3, presence_penalty=0.1),
    ]
    made = []
    for i, prompt in enumerate(prompts(count, seed=8)):
        way = ways[i % len(ways)]
        given = tuple(held_out_ids()[: 70 + i]) if i % 3 == 0 else prompt
        sampling = Sampling(**{f: getattr(way, f) for f in way.__dataclass_fields__} | {"seed": i})
        made.append(
            Job(
                checkpoint, [given], n=1 + i % 3, max_tokens=5 + 3 * i, sampling=sampling,
                stop=["."] if i % 4 == 1 else [], logprobs=2, echo=i % 5 == 2,
            )
        )  # fmt: skip
    return made


async def with_company(engine: LocalEngine, jobs: list[Job], seed: int) -> list[list[Answered]]:
    chance = random.Random(seed)

    async def late(job: Job) -> list[Answered]:
        await asyncio.sleep(chance.random() * 0.2)
        return await ask(engine, job)

    async def crowd(prompt: tuple[int, ...]) -> None:
        await asyncio.sleep(chance.random() * 0.2)
        stream = engine.generate(Job(jobs[0].checkpoint, [prompt], n=2, max_tokens=40))
        for _ in range(chance.randrange(1, 30)):
            await anext(stream, None)
        await stream.aclose()

    others = [crowd(prompt) for prompt in prompts(16, seed=seed)]
    order = chance.sample(range(len(jobs)), len(jobs))
    found = await asyncio.gather(*(late(jobs[i]) for i in order), *others)
    return [found[order.index(i)] for i in range(len(jobs))]


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_the_same_seed_gives_the_same_text_whatever_else_runs(
    blobs: LocalBlobStore, mini: Checkpoint, dtype: Dtype
) -> None:
    """Texts, tokens and figures, to the last bit: alone in a new engine each, and in company."""

    async def one_by_one(engine: LocalEngine) -> list[list[Answered]]:
        return [await ask(engine, job) for job in reversed(seeded(mini))][::-1]

    alone = with_engine(blobs, options(dtype=dtype, sequences=1), one_by_one)
    for seed, sequences in ((1, 32), (2, 5)):
        found = with_engine(
            blobs,
            options(dtype=dtype, sequences=sequences),
            lambda engine, seed=seed: with_company(engine, seeded(mini), seed),
        )
        assert found == alone


def test_choices_have_seeds_of_their_own(blobs: LocalBlobStore, mini: Checkpoint) -> None:
    async def main(engine: LocalEngine) -> None:
        def job(prompt: str, n: int, **given: Any) -> Job:
            return Job(mini, [prompt], n=n, max_tokens=12, sampling=Sampling(**given))

        four = [a.text for a in await ask(engine, job(TEXT, 4, seed=5))]
        two = [a.text for a in await ask(engine, job(TEXT, 2, seed=5))]
        assert len(set(four)) == 4
        assert four[:2] == two
        # Sequence i belongs to prompt i // n, and its number in the job is its seed's other half.
        both = Job(mini, ["A", TEXT], n=2, max_tokens=12, sampling=Sampling(seed=5))
        assert [a.text for a in await ask(engine, both)][2:] == four[2:]
        assert len({a.text for a in await ask(engine, job(TEXT, 3, temperature=0))}) == 1
        unseeded = [a.text for a in await ask(engine, job(TEXT, 8))]
        assert len(set(unseeded)) > 1

    with_engine(blobs, options(), main)


# --- what an answer holds -------------------------------------------------------------------------


def test_an_answer_is_its_tokens_and_its_pieces(blobs: LocalBlobStore, mini: Checkpoint) -> None:
    async def main(engine: LocalEngine) -> None:
        events = [
            event
            async for event in engine.generate(
                Job(mini, [TEXT, "A"], n=2, max_tokens=9, sampling=Sampling(seed=1), logprobs=3)
            )
        ]
        assert isinstance(events[0], Admitted)
        assert len(events[0].prompt_tokens) == 2
        assert sum(isinstance(event, Ended) for event in events) == 4
        for index in range(4):
            pieces = [e for e in events if isinstance(e, Piece) and e.index == index]
            tokens = [token for piece in pieces for token in piece.tokens]
            assert "".join(piece.text for piece in pieces) == "".join(t.text for t in tokens)
            for token in tokens:
                assert len(token.top) == 3
                figures = [value for _, _, value in token.top]
                assert figures == sorted(figures, reverse=True)
                assert token.logprob is not None
                assert token.logprob <= figures[0]
            (end,) = [e for e in events if isinstance(e, Ended) and e.index == index]
            assert end.completion_tokens == len(tokens) + (end.reason == "stop")

    with_engine(blobs, options(), main)


def test_echo_sends_the_prompt_as_it_was_given(blobs: LocalBlobStore, mini: Checkpoint) -> None:
    async def main(engine: LocalEngine) -> None:
        def job(prompt: Any, **given: Any) -> Job:
            return Job(mini, [prompt], sampling=GREEDY, **({"max_tokens": 4} | given))

        (bare,) = await ask(engine, job(TEXT))
        (plain,) = await ask(engine, job(TEXT, echo=True))
        assert plain.text == TEXT + bare.text
        assert plain.tokens == []
        for n in (1, 3):
            for told in await ask(engine, job(TEXT, echo=True, logprobs=1, n=n)):
                assert told.text == plain.text
                assert "".join(token.text for token in told.tokens) == told.text
                assert told.tokens[0].logprob is None
                assert all(token.logprob is not None for token in told.tokens[1:])
        marked = f"{END}Once {END}again"
        (control,) = await ask(engine, job(marked, echo=True))
        assert control.text.startswith(marked)
        # A prompt that ends within a character: the answer may complete it.
        (half,) = await ask(engine, job("é", max_tokens=0, logprobs=0, echo=True))
        cut = tuple(half.ids)[:1]
        assert len(half.ids) == 2
        forced = Sampling(temperature=0, logit_bias={half.ids[1]: 1000.0})
        (whole,) = await ask(
            engine, Job(mini, [cut], max_tokens=1, sampling=forced, echo=True, logprobs=0)
        )
        assert whole.text == "é"
        # A stop text in the prompt stops nothing.
        (stopped,) = await ask(engine, job(TEXT, echo=True, stop=["committee"]))
        assert stopped.text == plain.text

    with_engine(blobs, options(), main)


def test_a_stop_ends_a_sequence_and_is_not_sent(blobs: LocalBlobStore, mini: Checkpoint) -> None:
    async def main(engine: LocalEngine) -> None:
        sampling = Sampling(seed=3)
        (free,) = await ask(engine, Job(mini, [TEXT], max_tokens=30, sampling=sampling))
        assert len(free.text) > 20
        for begin, length in ((5, 1), (7, 4), (11, 9)):
            stop = free.text[begin : begin + length]
            (held,) = await ask(
                engine,
                Job(mini, [TEXT], max_tokens=30, sampling=sampling, stop=["\x00no", stop]),
            )
            assert held.text == free.text[: free.text.index(stop)]
            assert held.reason == "stop"
            assert held.count <= free.count
        (unmet,) = await ask(
            engine,
            Job(mini, [TEXT], max_tokens=30, sampling=sampling, stop=[free.text[-3:] + "\x00"]),
        )
        assert unmet == free

    with_engine(blobs, options(), main)


def test_the_token_that_ends_a_text_is_counted_and_not_sent(
    blobs: LocalBlobStore, mini: Checkpoint
) -> None:
    async def main(engine: LocalEngine) -> None:
        ends = Sampling(temperature=0, logit_bias={0: 1000.0})
        (answer,) = await ask(engine, Job(mini, [TEXT], max_tokens=9, sampling=ends, logprobs=1))
        assert answer == Answered("", [], "stop", 1)

    with_engine(blobs, options(), main)


def test_no_tokens_can_be_asked_for(blobs: LocalBlobStore, mini: Checkpoint) -> None:
    async def main(engine: LocalEngine) -> None:
        (nothing,) = await ask(engine, Job(mini, [TEXT], max_tokens=0))
        assert nothing == Answered("", [], "length", 0)
        for answer in await ask(engine, Job(mini, [TEXT], max_tokens=0, echo=True, n=3)):
            assert answer == Answered(TEXT, [], "length", 0)
        full = tuple(held_out_ids()[:256])
        (whole,) = await ask(engine, Job(mini, [full], max_tokens=0, echo=True, logprobs=0))
        assert whole.ids == list(full)

    with_engine(blobs, options(), main)


# --- refusals -------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "too long": ({"prompts": [(5,) * 250], "max_tokens": 7}, "engine.context"),
    "much too long": ({"prompts": ["word " * 2_000_000]}, "engine.context"),
    "long and without spaces": ({"prompts": ["x" * 10_000_000]}, "engine.context"),
    "more than it holds": ({"prompts": [TEXT], "max_tokens": 256}, "engine.context"),
    "an id too high": ({"prompts": [(5, 1024)]}, "engine.token"),
    "an id below": ({"prompts": [(-1,)]}, "engine.token"),
    "half a character": ({"prompts": ["a \ud83d b"]}, "engine.token"),
    "a bias for no token": ({"sampling": Sampling(logit_bias={1024: 1.0})}, "engine.token"),
    "a bias from the end": ({"sampling": Sampling(logit_bias={-1: 1.0})}, "engine.token"),
    "no text": ({"prompts": [TEXT, ""]}, "engine.empty"),
    "no ids": ({"prompts": [()]}, "engine.empty"),
    "no prompt": ({"prompts": []}, "engine.empty"),
    "too many": ({"prompts": [TEXT] * 65, "n": 2}, "engine.parameter"),
    "more than may wait": ({"n": 100}, "engine.parameter"),
}


def test_what_cannot_be_asked_is_refused_at_once_and_harms_nobody(
    blobs: LocalBlobStore, mini: Checkpoint
) -> None:
    async def main(engine: LocalEngine) -> None:
        good = Job(mini, [TEXT], max_tokens=200, sampling=Sampling(seed=2))
        want = await ask(engine, good)
        running = asyncio.create_task(ask(engine, good))
        longest, stopped = 0.0, False

        async def watch() -> None:
            nonlocal longest
            while not stopped:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                longest = max(longest, time.perf_counter() - before)

        watching = asyncio.create_task(watch())
        for name, (given, reason) in REFUSED.items():
            began = time.perf_counter()
            refusal = await refusal_of(
                engine, Job(**({"checkpoint": mini, "prompts": [TEXT]} | given))
            )
            assert isinstance(refusal, Invalid), name
            assert refusal.reason == reason, name
            assert refusal.sentence.endswith("."), name
            assert time.perf_counter() - began < 2, name
        stopped = True
        await watching
        assert longest < 1  # ten million letters were not read in the loop
        assert await running == want
        assert (await engine.state()).running == 0

    with_engine(blobs, options(queue=90), main)


def test_a_tokenizer_with_more_tokens_than_the_model_harms_nobody(blobs: LocalBlobStore) -> None:
    made = files()
    tokenizer = json.loads(made["tokenizer.json"])
    added = dict(tokenizer["added_tokens"][0]) | {"id": 1030, "content": "<pad>"}
    tokenizer["added_tokens"].append(added)
    tokenizer["truncation"] = {
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    tokenizer["padding"] = {
        "strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": END,
    }  # fmt: skip
    made["tokenizer.json"] = json.dumps(tokenizer).encode()
    checkpoint = put(blobs, made, "padded")

    async def main(engine: LocalEngine) -> None:
        running = asyncio.create_task(
            ask(engine, Job(checkpoint, [TEXT], max_tokens=0, logprobs=0, echo=True))
        )
        refusal = await refusal_of(engine, Job(checkpoint, ["A <pad> B"]))
        assert refusal.reason == "engine.token"
        (answer,) = await running
        assert "".join(token.text for token in answer.tokens) == TEXT  # neither cut nor filled

    with_engine(blobs, options(), main)


def test_the_queue_is_bounded(blobs: LocalBlobStore, mini: Checkpoint) -> None:
    async def main(engine: LocalEngine) -> None:
        job = Job(
            mini, [TEXT], n=2, max_tokens=60, sampling=Sampling(seed=1, logit_bias={0: -1000})
        )
        await ask(engine, job)  # loaded
        results = await asyncio.gather(
            *(ask(engine, job) for _ in range(6)), return_exceptions=True
        )
        refused = [r for r in results if isinstance(r, TooMany)]
        done = [r for r in results if isinstance(r, list)]
        assert len(done) + len(refused) == 6
        assert 2 <= len(done) < 6  # two run at once and four may wait
        assert all(r.reason == "engine.full" and r.retry_after > 0 for r in refused)
        assert all(r == done[0] for r in done)

    with_engine(blobs, options(sequences=2, queue=4), main)


# --- calling off ----------------------------------------------------------------------------------


def test_who_leaves_frees_the_place_within_one_step(
    blobs: LocalBlobStore, mini: Checkpoint
) -> None:
    async def main(engine: LocalEngine) -> None:
        lasting = Sampling(seed=2, logit_bias={0: -1000})
        good = Job(mini, [TEXT], max_tokens=200, sampling=lasting)
        want = await ask(engine, good)
        running = asyncio.create_task(ask(engine, good))
        for take in (1, 2, 5):  # before its first token, at it, and later
            stream = engine.generate(Job(mini, [TEXT], n=3, max_tokens=200, sampling=lasting))
            for _ in range(take):
                await anext(stream)
            before = (await engine.state()).figures
            await stream.aclose()
            after = await engine.state()
            assert after.running + after.waiting <= 1
            await asyncio.sleep(0)
            assert (
                after.figures["sequences_called_off"] >= before.get("sequences_called_off", 0) + 1
            )
        cancelled = asyncio.create_task(ask(engine, good))
        await asyncio.sleep(0.02)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await running == want
        assert (await engine.state()).running == 0

    with_engine(blobs, options(), main)


def test_who_leaves_while_loading_leaves_nothing_behind(
    blobs: LocalBlobStore, minis: dict[str, Checkpoint]
) -> None:
    async def main(engine: LocalEngine) -> None:
        tasks = [asyncio.create_task(ask(engine, Job(m, [TEXT]))) for m in minis.values()]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for checkpoint in minis.values():
            await ask(engine, Job(checkpoint, [TEXT]))
        await idle(engine)

    with_engine(blobs, options(), main)


# --- models ---------------------------------------------------------------------------------------


def test_several_models_answer_at_once(blobs: LocalBlobStore, minis: dict[str, Checkpoint]) -> None:
    jobs = [
        Job(minis[label], [TEXT], max_tokens=30, sampling=Sampling(seed=4), logprobs=0)
        for label in LABELS
    ]

    async def apart(engine: LocalEngine) -> list[list[Answered]]:
        return [await ask(engine, job) for job in jobs]

    async def together(engine: LocalEngine) -> list[list[Answered]]:
        found = await asyncio.gather(*(ask(engine, job) for job in jobs))
        states = (await engine.state()).models
        assert {state.commit for state in states} == {m.commit for m in minis.values()}
        assert all(state.state == "ready" and state.progress == 1 for state in states)
        return list(found)

    assert with_engine(blobs, options(), apart) == with_engine(blobs, options(), together)


def test_who_comes_while_a_model_loads_is_told_when_to_come_again(
    blobs: LocalBlobStore, minis: dict[str, Checkpoint]
) -> None:
    async def main(engine: LocalEngine) -> None:
        job = Job(minis["1.5B"], [TEXT])
        for call in (ask(engine, job), engine.score(minis["1.5B"], [TEXT])):
            with pytest.raises(Unavailable, match="being loaded") as refusal:
                await call
            assert refusal.value.reason == "engine.loading"
            assert 1 <= refusal.value.retry_after <= 60
        (state,) = (await engine.state()).models
        assert (state.state, state.dtype) == ("loading", "fp32")
        for _ in range(2000):
            (state,) = (await engine.state()).models
            if state.state == "ready":
                break
            await asyncio.sleep(0.005)
        assert (await ask(engine, job))[0].reason

    with_engine(blobs, options(patience=0), main)


def drop_tensor(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    return change


def cut_tensor(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({name: tensors[name][:-1].clone()})


BROKEN: dict[str, Callable[[], dict[str, bytes]]] = {
    "another architecture": lambda: bent(model_type="llama"),
    "a config that is no JSON": lambda: files() | {"config.json": b"{"},
    "a config that is no object": lambda: files() | {"config.json": b"[1]"},
    "a config nested without end": lambda: files() | {"config.json": b"[" * 100_000},
    "a config of nothing": lambda: files() | {"config.json": b'{"model_type": "gpt2"}'},
    "more heads than width": lambda: bent(n_head=7),
    "more positions than the table": lambda: bent(n_positions=1024),
    "more tokens than the table": lambda: bent(vocab_size=5000),
    "another width": lambda: bent(n_embd=96),
    "a tensor missing": lambda: bent(drop_tensor("transformer.h.1.ln_1.bias")),
    "a tensor too short": lambda: bent(cut_tensor("transformer.h.2.mlp.c_fc.weight")),
    "weights cut off": lambda: files() | {"model.safetensors": files()["model.safetensors"][:9999]},
    "weights of rubbish": lambda: files() | {"model.safetensors": b"\xff" * 1000},
    "no weights": lambda: {k: v for k, v in files().items() if k != "model.safetensors"},
    "a tokenizer of rubbish": lambda: files() | {"tokenizer.json": b'{"model": 3}'},
    "a tokenizer cut off": lambda: files() | {"tokenizer.json": files()["tokenizer.json"][:5000]},
    "no tokenizer": lambda: {k: v for k, v in files().items() if k != "tokenizer.json"},
    "an index of nothing": lambda: (
        {k: v for k, v in files().items() if k != "model.safetensors"}
        | {"model.safetensors.index.json": b'{"weight_map": {"a": "b.safetensors"}}'}
    ),
}


def test_what_cannot_be_loaded_is_refused_each_time_and_harms_nobody(
    blobs: LocalBlobStore, mini: Checkpoint
) -> None:
    async def main(engine: LocalEngine) -> None:
        good = Job(mini, [TEXT], max_tokens=200, sampling=Sampling(seed=2))
        want = await ask(engine, good)
        running = asyncio.create_task(ask(engine, good))
        for name, make in BROKEN.items():
            broken = put(blobs, make(), name)
            for _ in range(2):
                refusal = await refusal_of(engine, Job(broken, [TEXT]))
                assert isinstance(refusal, Invalid), name
                assert refusal.reason == "engine.model", name
        assert len((await engine.state()).models) == 1
        assert await running == want

    with_engine(blobs, options(), main)


def test_who_asks_for_what_cannot_be_loaded_leaves_the_loader_to_others(
    blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = put(blobs, BROKEN["a tokenizer cut off"](), "again and again")
    tries: list[str] = []
    real = shelf_module.open_checkpoint

    def opened(store: Any, checkpoint: Checkpoint) -> Any:
        tries.append(checkpoint.commit)
        time.sleep(0.05)
        return real(store, checkpoint)

    monkeypatch.setattr(shelf_module, "open_checkpoint", opened)

    async def main(engine: LocalEngine) -> None:
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            assert (await refusal_of(engine, Job(broken, [TEXT]))).reason == "engine.model"
            await asyncio.sleep(0.002)

    with_engine(blobs, options(), main)
    assert 1 <= len(tries) <= 4  # of hundreds of requests


def test_a_load_that_failed_can_be_tried_again(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path)
    whole = put(blobs, directory("124M"))
    weights = whole.files["model.safetensors"]
    raw = (directory("124M") / "model.safetensors").read_bytes()
    blobs.delete(weights)

    async def main(engine: LocalEngine) -> None:
        began = time.monotonic()
        refusal = await refusal_of(engine, Job(whole, [TEXT]))
        assert refusal.reason == "engine.model"
        with blobs.writer() as writer:
            writer.write(raw)
            writer.commit(weights)
        await asyncio.sleep(20 * (time.monotonic() - began))  # longer than it rests
        assert (await ask(engine, Job(whole, [TEXT])))[0].reason

    with_engine(blobs, options(), main)


def test_the_longest_unused_model_makes_room(
    blobs: LocalBlobStore, minis: dict[str, Checkpoint]
) -> None:
    async def sizes(engine: LocalEngine) -> dict[str, int]:
        for checkpoint in minis.values():
            await ask(engine, Job(checkpoint, [TEXT], max_tokens=1))
        return {state.commit: state.bytes for state in (await engine.state()).models}

    small = {"sequences": 4}
    size = {
        label: with_engine(blobs, options(**small), sizes)[minis[label].commit] for label in LABELS
    }
    budget = size["124M"] + size["335M"] + size["774M"]

    async def main(engine: LocalEngine) -> None:
        async def held() -> set[str]:
            commits = {state.commit for state in (await engine.state()).models}
            return {label for label in LABELS if minis[label].commit in commits}

        for label in ("124M", "335M", "774M", "124M"):
            await ask(engine, Job(minis[label], [TEXT], max_tokens=1))
        assert await held() == {"124M", "335M", "774M"}
        done = (await engine.state()).figures["sequences_ended"]
        await ask(engine, Job(minis["1.5B"], [TEXT], max_tokens=1))
        assert await held() <= {"124M", "1.5B"}  # the two that were used last, as far as they fit
        assert "1.5B" in await held()
        # What a forgotten model has done is still counted.
        assert (await engine.state()).figures["sequences_ended"] == done + 1
        # Who is in use stays, and is told to who comes.
        lasting = Sampling(seed=1, logit_bias={0: -1000})
        long = Job(minis["1.5B"], [TEXT], max_tokens=240, sampling=lasting)
        running = asyncio.create_task(ask(engine, long))
        await started(engine, running)
        refusal = await refusal_of(engine, Job(minis["774M"], [TEXT], max_tokens=1))
        assert isinstance(refusal, Unavailable)
        assert refusal.reason == "engine.memory"
        assert refusal.retry_after > 0
        assert (await running)[0].count == 240
        await ask(engine, Job(minis["774M"], [TEXT], max_tokens=1))

    with_engine(blobs, options(**small, memory=max(budget, size["1.5B"] + size["124M"])), main)

    async def too_large(engine: LocalEngine) -> None:
        await ask(engine, Job(minis["124M"], [TEXT], max_tokens=1))
        refusal = await refusal_of(engine, Job(minis["1.5B"], [TEXT], max_tokens=1))
        assert refusal.reason == "engine.memory"
        # What would not have helped was not done.
        assert [m.commit for m in (await engine.state()).models] == [minis["124M"].commit]

    with_engine(blobs, options(**small, memory=size["1.5B"] - 1), too_large)


def test_who_has_borrowed_a_model_keeps_it_before_anything_is_computed(
    blobs: LocalBlobStore, minis: dict[str, Checkpoint]
) -> None:
    async def main() -> None:
        room = Room(memory=6_500_000, store_memory=1, sequences=1, queue=1, patience=60)
        shelf = Shelf(blobs, room, dtype="fp32", device=torch.device("cpu"), threads=1)
        async with shelf.borrow(minis["124M"]) as runner:
            with pytest.raises(Unavailable) as refusal:
                async with shelf.borrow(minis["774M"]):
                    pass
            assert refusal.value.reason == "engine.memory"
            assert shelf.runners() == [runner]
        async with shelf.borrow(minis["774M"]) as other:
            assert shelf.runners() == [other]
        shelf.close()

    asyncio.run(main())


def test_a_model_that_is_always_asked_yields_when_it_had_its_turn(
    blobs: LocalBlobStore, minis: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three callers without pause keep one model in use; a fourth wants one that needs its room."""
    monkeypatch.setattr(shelf_module, "TURN", 0.5)
    monkeypatch.setattr(shelf_module, "YIELD", 0.5)
    lasting = Sampling(logit_bias={0: -1000.0})

    async def main(engine: LocalEngine) -> dict[str, int]:
        done = dict.fromkeys(("124M", "774M"), 0)
        stop = time.monotonic() + 30

        async def caller(label: str) -> None:
            job = Job(minis[label], [TEXT], max_tokens=60, sampling=lasting)
            while time.monotonic() < stop and min(done.values()) < 4:
                try:
                    await ask(engine, job)
                    done[label] += 1
                except Unavailable as refusal:
                    if refusal.reason not in ("engine.memory", "engine.loading"):
                        raise
                    await asyncio.sleep(0.1)

        await ask(engine, Job(minis["124M"], [TEXT], max_tokens=1))
        await asyncio.gather(*(caller("124M") for _ in range(3)), caller("774M"))
        return done

    assert min(with_engine(blobs, options(sequences=2, memory=7_600_000), main).values()) >= 4


def test_nobody_yields_to_what_would_not_fit_even_so(
    blobs: LocalBlobStore, minis: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "TURN", 0.0)

    async def main(engine: LocalEngine) -> None:
        job = Job(minis["124M"], [TEXT], max_tokens=200, sampling=Sampling(logit_bias={0: -1000}))
        running = asyncio.create_task(ask(engine, job))
        await started(engine, running)
        refusal = await refusal_of(engine, Job(minis["1.5B"], [TEXT]))
        assert refusal.reason == "engine.memory"
        assert "cannot be served here" in refusal.sentence
        assert await ask(engine, Job(minis["124M"], [TEXT], max_tokens=1))
        await running

    with_engine(blobs, options(sequences=2, memory=5_000_000), main)


def test_who_takes_nothing_keeps_no_model(
    blobs: LocalBlobStore, minis: dict[str, Checkpoint]
) -> None:
    """Their answer is computed and waits for them; the model's room is another's."""

    async def main(engine: LocalEngine) -> None:
        job = Job(minis["124M"], [TEXT], max_tokens=20, sampling=Sampling(logit_bias={0: -1000}))
        async with aclosing(engine.generate(job)) as events:
            assert isinstance(await anext(events), Admitted)
            await idle(engine)
            await ask(engine, Job(minis["774M"], [TEXT], max_tokens=1))
            assert len((await engine.state()).models) == 1
            rest = [event async for event in events]
        assert isinstance(rest[-1], Ended)
        assert rest[-1].completion_tokens == 20

    with_engine(blobs, options(sequences=2, memory=7_600_000), main)


def test_models_that_push_each_other_out_lose_nobody(
    blobs: LocalBlobStore, minis: dict[str, Checkpoint]
) -> None:
    """Room for one at a time, and callers of four: each is answered, or told to come again."""

    async def main(engine: LocalEngine) -> None:
        chance = random.Random(1)
        jobs = {
            label: Job(minis[label], [TEXT], max_tokens=4, sampling=Sampling(seed=1))
            for label in LABELS
        }
        answers: dict[str, set[str]] = {label: set() for label in LABELS}

        async def caller() -> None:
            done = 0
            while done < 6:
                label = chance.choice(LABELS)
                try:
                    (answer,) = await asyncio.wait_for(ask(engine, jobs[label]), 30)
                except Unavailable as refusal:
                    if refusal.reason not in ("engine.memory", "engine.loading"):
                        raise
                    await asyncio.sleep(0.01)
                    continue
                answers[label].add(answer.text)
                done += 1

        await asyncio.gather(*(caller() for _ in range(4)))
        assert all(len(texts) <= 1 for texts in answers.values())
        await idle(engine)

    with_engine(blobs, options(sequences=2, memory=9_000_000), main)


# --- memory ---------------------------------------------------------------------------------------


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_place_given_up_returns_its_memory() -> None:
    model = load("wide", "fp32")
    before = resident()
    model.store.pool[:] = 1.0
    written = resident() - before
    assert written > 0.9 * model.store.pool.numel() * 4
    for slot in range(model.store.slots):
        model.store.give_up(slot)
    assert resident() - before < 0.05 * written


def test_a_forgotten_model_returns_its_memory(
    blobs: LocalBlobStore, minis: dict[str, Checkpoint]
) -> None:
    async def main(engine: LocalEngine) -> None:
        await ask(engine, Job(minis["124M"], [TEXT], max_tokens=1))
        long = [(i + 1,) * 250 for i in range(32)]
        before = resident()
        await ask(engine, Job(minis["1.5B"], long, max_tokens=1))
        store = resident() - before
        assert store > 40e6
        # Room for the two, so the third takes it from the longest unused.
        await ask(engine, Job(minis["124M"], [TEXT], max_tokens=1))
        await ask(engine, Job(minis["335M"], [TEXT], max_tokens=1))
        commits = {state.commit for state in (await engine.state()).models}
        assert minis["1.5B"].commit not in commits
        assert resident() - before < 0.5 * store

    with_engine(blobs, options(memory=90_000_000), main)


def test_no_more_memory_is_written_than_was_given(blobs: LocalBlobStore, mini: Checkpoint) -> None:
    """A store for two whole lengths, and many sequences: they wait, and all come to their end."""

    async def main(engine: LocalEngine) -> None:
        jobs = [
            Job(mini, [prompt], max_tokens=30, sampling=Sampling(seed=i))
            for i, prompt in enumerate(prompts(20))
        ]
        running = [asyncio.create_task(ask(engine, job)) for job in jobs]
        room = 0.0
        while not all(task.done() for task in running):
            figures = (await engine.state()).figures
            room = figures.get("store_room", 0)
            assert figures.get("store_tokens", 0) <= room
            await asyncio.sleep(0.002)
        assert room == 512
        for task in running:
            assert (await task)[0].reason

    per_token = 2 * 3 * 48 * 4
    with_engine(blobs, options(store_memory=512 * per_token), main)


# --- draining and failing -------------------------------------------------------------------------


def test_draining_lets_finish_what_runs_and_takes_nothing_new(
    blobs: LocalBlobStore, mini: Checkpoint
) -> None:
    async def main() -> None:
        engine = LocalEngine(blobs, options())
        job = Job(mini, [TEXT], max_tokens=150, sampling=Sampling(seed=6, logit_bias={0: -1000}))
        want = await ask(engine, job)
        running = asyncio.create_task(ask(engine, job))
        await started(engine, running)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0)
        assert (await engine.state()).draining
        for call in (ask(engine, job), engine.score(mini, [TEXT])):
            with pytest.raises(Unavailable) as refusal:
                await call
            assert refusal.value.reason == "engine.draining"
        assert await running == want
        await closing
        await engine.close()  # twice is once

    asyncio.run(main())


def test_what_outlasts_the_grace_is_told(blobs: LocalBlobStore, minis: dict[str, Any]) -> None:
    async def main() -> None:
        engine = LocalEngine(blobs, options(grace=0.0))
        lasting = Sampling(logit_bias={0: -1000})
        job = Job(minis["1.5B"], [TEXT], n=8, max_tokens=240, sampling=lasting)
        await ask(engine, Job(minis["1.5B"], [TEXT], max_tokens=1))
        running = asyncio.create_task(ask(engine, job))
        await started(engine, running)
        await engine.close()
        with pytest.raises(Unavailable) as refusal:
            await running
        assert refusal.value.reason == "engine.draining"

    asyncio.run(main())


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_weights_that_are_no_numbers_fail_those_alone_who_meet_them(
    blobs: LocalBlobStore, mini: Checkpoint, dtype: Dtype
) -> None:
    """The place of position 150 is no number: whoever gets so far fails, whoever does not does not,
    not even in the place where somebody failed before.
    """

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["transformer.wpe.weight"][150] = math.nan

    spoilt = put(blobs, bent(spoil), "spoilt")
    short = [(prompt, 40) for prompt in prompts(12, longest=100, seed=3)]

    def jobs(checkpoint: Checkpoint) -> list[Job]:
        return [
            Job(checkpoint, [p], max_tokens=n, sampling=Sampling(seed=i), logprobs=1)
            for i, (p, n) in enumerate(short)
        ]

    async def whole(engine: LocalEngine) -> list[list[Answered]]:
        return list(await asyncio.gather(*(ask(engine, job) for job in jobs(mini))))

    async def main(engine: LocalEngine) -> list[list[Answered]]:
        ids = held_out_ids()
        lasting = Sampling(logit_bias={0: -1000})
        bad = [
            Job(spoilt, [tuple(ids[:200])], max_tokens=5),
            Job(spoilt, [tuple(ids[9:149])], n=2, max_tokens=50, sampling=lasting),
            Job(spoilt, [tuple(ids[:180])], max_tokens=0),
            Job(spoilt, [tuple(ids[:180])], max_tokens=0, echo=True, logprobs=1, n=2),
        ]
        found: list[list[Answered]] = []
        for _ in range(2):  # in the same places, too
            failing = [asyncio.create_task(refusal_of(engine, job)) for job in bad]
            found = list(await asyncio.gather(*(ask(engine, job) for job in jobs(spoilt))))
            for refusal in await asyncio.gather(*failing):
                assert isinstance(refusal, Unavailable)
                assert refusal.reason == "engine.failed"
            with pytest.raises(Unavailable) as failed:
                await engine.score(spoilt, [TEXT, tuple(ids[:200])])
            assert failed.value.reason == "engine.failed"
        await idle(engine)
        return found

    given = options(dtype=dtype, sequences=3)
    assert with_engine(blobs, given, main) == with_engine(blobs, given, whole)


def test_a_head_that_is_no_number_fails_every_row_and_not_the_engine(
    blobs: LocalBlobStore, mini: Checkpoint
) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["transformer.ln_f.weight"][0] = math.inf

    spoilt = put(blobs, bent(spoil), "no head")

    async def main(engine: LocalEngine) -> None:
        for sampling in (GREEDY, Sampling(), Sampling(top_p=0.5)):
            refusal = await refusal_of(engine, Job(spoilt, [TEXT], n=3, sampling=sampling))
            assert refusal.reason == "engine.failed"
        assert (await ask(engine, Job(mini, [TEXT])))[0].reason

    with_engine(blobs, options(), main)


def test_figures_that_are_no_numbers_fail_what_asks_for_them(
    blobs: LocalBlobStore, mini: Checkpoint
) -> None:
    """Hidden states are numbers here, and the head makes none of them, or not of one token."""

    def every(tensors: dict[str, torch.Tensor]) -> None:
        tensors["transformer.ln_f.weight"][0] = math.inf

    def one(tensors: dict[str, torch.Tensor]) -> None:
        head = tensors["transformer.wte.weight"].clone()
        head[77] = 3e38
        tensors["lm_head.weight"] = head

    spoilt = [
        put(blobs, bent(every), "every figure"),
        put(blobs, bent(one, tie_word_embeddings=False), "one figure"),
    ]

    async def main(engine: LocalEngine) -> None:
        for checkpoint in spoilt:
            with pytest.raises(Unavailable) as failed:
                await engine.score(checkpoint, [(5, 77, 6), TEXT], top=2)
            assert failed.value.reason == "engine.failed"
            for fields in ({"max_tokens": 0, "echo": True}, {"max_tokens": 3, "n": 2}):
                job = Job(checkpoint, [TEXT], logprobs=2, **fields)
                assert (await refusal_of(engine, job)).reason == "engine.failed"
            await idle(engine)
        assert (await ask(engine, Job(mini, [TEXT], logprobs=2)))[0].reason

    with_engine(blobs, options(), main)


def test_an_added_token_that_is_not_special_is_text(blobs: LocalBlobStore) -> None:
    made = files()
    tokenizer = json.loads(made["tokenizer.json"])
    vocabulary = tokenizer["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    number = vocabulary.pop(last)
    pairs = [m if isinstance(m, list) else m.split(" ") for m in tokenizer["model"]["merges"]]
    tokenizer["model"]["merges"] = [p for p in pairs if last not in ("".join(p), *p)]
    plain = tokenizer["added_tokens"][0] | {"id": number, "content": "[T] café", "special": False}
    tokenizer["added_tokens"].append(plain)
    checkpoint = put(blobs, made | {"tokenizer.json": json.dumps(tokenizer).encode()}, "added")

    async def main(engine: LocalEngine) -> None:
        only = Sampling(temperature=0, logit_bias={number: 1000.0})
        (answer,) = await ask(
            engine, Job(checkpoint, [TEXT], max_tokens=2, sampling=only, logprobs=0)
        )
        assert answer.text == "[T] café" * 2
        assert [token.text for token in answer.tokens] == ["[T] café"] * 2
        (echo,) = await ask(engine, Job(checkpoint, [(5, number, 0, 6)], max_tokens=0, echo=True))
        assert "[T] café" in echo.text
        assert END not in echo.text  # special ones are none

    with_engine(blobs, options(), main)


# --- scores and figures ---------------------------------------------------------------------------


def test_scores_are_those_that_are_told_when_generating(
    blobs: LocalBlobStore, mini: Checkpoint
) -> None:
    async def main(engine: LocalEngine) -> None:
        job = Job(mini, [TEXT], max_tokens=60, sampling=Sampling(seed=3), logprobs=5, echo=True)
        (answer,) = await ask(engine, job)
        texts = [tuple(answer.ids), *prompts(6, seed=5), TEXT]
        scored = await engine.score(mini, texts, top=5)
        assert len(scored) == len(texts)
        for ours, told in zip(scored[0], answer.tokens, strict=True):
            assert (ours.id, ours.text) == (told.id, told.text)
            if told.logprob is None:
                assert ours.logprob is ours.rank is None
                continue
            assert ours.logprob == pytest.approx(told.logprob, abs=1e-4)
            assert [i for i, _, _ in ours.top] == [i for i, _, _ in told.top]
        assert "".join(token.text for token in scored[-1]) == TEXT

    with_engine(blobs, options(), main)


def test_ranks_are_places_in_the_whole_order(blobs: LocalBlobStore, mini: Checkpoint) -> None:
    text = prompts(3, seed=2)[1][:100]
    model, script = load("124M", "fp32"), Script(list(text), len(text), fresh=True)
    play(model, [script])
    with torch.no_grad():
        logits = model.logits(torch.stack([script.rows[at] for at in range(len(text))]))
    orders = torch.sort(logits, descending=True, stable=True).indices.tolist()
    figures = logits.double().log_softmax(-1)

    async def main(engine: LocalEngine) -> None:
        ((first, *others),) = await engine.score(mini, [text], top=20)
        assert (first.logprob, first.rank, first.top) == (None, None, ())
        for at, token in enumerate(others):
            assert token.rank == orders[at].index(token.id)
            assert token.logprob == pytest.approx(float(figures[at, token.id]), abs=1e-4)
            assert [i for i, _, _ in token.top] == orders[at][:20]
        (one,) = await engine.score(mini, [(7,)])
        assert (len(one), one[0].logprob) == (1, None)

    with_engine(blobs, options(), main)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([TEXT, ""], "engine.empty"),
        ([(5,) * 257], "engine.context"),
        ([(1024,)], "engine.token"),
        ([TEXT] * 129, "engine.parameter"),
        ([TEXT] * 91, "engine.parameter"),
    ],
    ids=str,
)
def test_what_cannot_be_scored_is_refused(
    blobs: LocalBlobStore, mini: Checkpoint, texts: list[Any], reason: str
) -> None:
    async def main(engine: LocalEngine) -> None:
        with pytest.raises(Invalid) as refusal:
            await engine.score(mini, texts)
        assert refusal.value.reason == reason
        scores, (answer,) = await asyncio.gather(
            engine.score(mini, [TEXT]), ask(engine, Job(mini, [TEXT]))
        )
        assert answer.reason
        assert len(scores) == 1

    with_engine(blobs, options(queue=90), main)


def test_beginnings_are_used_again_within_a_salt_alone(
    blobs: LocalBlobStore, mini: Checkpoint
) -> None:
    async def main(engine: LocalEngine) -> None:
        prompt = tuple(held_out_ids()[:200])

        async def reused(salt: str) -> float:
            before = (await engine.state()).figures.get("reused_tokens", 0)
            await ask(engine, Job(mini, [prompt], max_tokens=3, cache_salt=salt))
            return (await engine.state()).figures["reused_tokens"] - before

        assert await reused("a") == 0
        assert await reused("b") == 0
        assert await reused("a") == 3 * CHUNK
        assert await reused("") == 0
        before = (await engine.state()).figures["prompt_tokens"]
        await ask(engine, Job(mini, [prompt], n=4, max_tokens=3, cache_salt="c"))
        figures = (await engine.state()).figures
        assert figures["prompt_tokens"] - before == 200  # once for all four
        assert figures["ttft_seconds_count"] == 5
        assert figures["steps"] > 0
        assert figures["rows"] > 0

    with_engine(blobs, options(), main)
