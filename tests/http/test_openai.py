"""The OpenAI face, asked by the real client over a live server."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import openai
import pytest

from live import World
from stagerelease.http.openai import bodies
from stagerelease.kernel.errors import Invalid

PUBLIC = "demo/gpt2-mini-124M"


def client(world: World, who: str = "partner", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{world.base_url}/v1", api_key=world.tokens[who], max_retries=0, **options
    )


def ask(world: World, body: Any, *, who: str | None = "partner", path: str = "completions"):
    with world.client(who) as http:
        return http.post(f"/v1/{path}", json=body)


def body(**changes: Any) -> dict[str, Any]:
    return {"model": PUBLIC, "prompt": "In a shocking finding", "max_tokens": 8} | changes


# --- completions --------------------------------------------------------------------------------


def test_completions(world: World) -> None:
    answer = client(world).completions.create(**body(temperature=0, n=2))
    assert answer.object == "text_completion"
    assert answer.model == PUBLIC
    assert [c.index for c in answer.choices] == [0, 1]
    assert answer.choices[0].text == answer.choices[1].text != ""
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (21, 16)
    label = answer.model_extra["stagerelease"]
    assert label["output"] == "machine-written"
    assert label["revision"] == answer.system_fingerprint


def test_every_form_of_prompt(world: World) -> None:
    asked = client(world).completions
    for prompt, count in (
        ("Hello", 1),
        (["Hello", "In a"], 2),
        ([72, 101], 1),
        ([[72, 101], [73, 110]], 2),
    ):
        assert len(asked.create(**body(prompt=prompt)).choices) == count
    same = [asked.create(**body(prompt=p, seed=4)).choices[0].text for p in ("He", [72, 101])]
    assert same[0] == same[1]


def test_a_stream_says_the_same_and_ends_with_usage(world: World) -> None:
    asked = body(seed=3, n=2, max_tokens=24)
    whole = client(world).completions.create(**asked)
    chunks = list(
        client(world).completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = {0: "", 1: ""}
    reasons = {}
    for chunk in chunks:
        assert chunk.id == chunks[0].id
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
                assert chunk.model_extra["stagerelease"]["output"] == "machine-written"
    assert texts == {c.index: c.text for c in whole.choices}
    assert reasons == {c.index: c.finish_reason for c in whole.choices}
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_the_stream_on_the_wire(world: World) -> None:
    with (
        world.client("partner") as http,
        http.stream("POST", "/v1/completions", json=body(stream=True)) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        lines = [line for line in answer.read().decode().split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    documents = [json.loads(line[6:]) for line in lines[:-1]]
    assert {d["object"] for d in documents} == {"text_completion"}
    assert "usage" not in documents[0]


def test_what_the_answer_says_of_itself(world: World) -> None:
    headers = ask(world, body()).headers
    assert headers["x-stagerelease-output"].startswith(f"machine-written; model={PUBLIC}@")
    assert headers["x-stagerelease-prompt-logging"] == "off"
    assert headers["x-stagerelease-request"].startswith("inf_")
    assert headers["x-ratelimit-limit-requests"] == "120"
    assert headers["x-ratelimit-remaining-requests"] == "119"
    assert headers["x-ratelimit-limit-tokens"] == "40000"
    assert int(headers["x-ratelimit-remaining-tokens"]) == 40_000 - 21 - 8
    assert headers["x-ratelimit-reset-tokens"] == "60s"
    assert '"tokens-day";q=2000000;w=86400' in headers["ratelimit-policy"]
    assert '"tokens-day";r=1999971;t=' in headers["ratelimit"]


def test_logprobs_and_echo(world: World) -> None:
    answer = client(world).completions.create(**body(logprobs=3, echo=True, max_tokens=4, seed=1))
    choice = answer.choices[0]
    assert choice.text.startswith("In a shocking finding")
    figures = choice.logprobs
    assert figures is not None
    assert len(figures.tokens) == len(figures.token_logprobs) == 25
    assert figures.token_logprobs[0] is None
    assert figures.text_offset[:3] == [0, 1, 2]
    for token, own, top in zip(
        figures.tokens, figures.token_logprobs, figures.top_logprobs, strict=True
    ):
        if own is not None:  # the token itself is told too, if it is not among the likeliest
            assert top[token] == own
            assert 3 <= len(top) <= 4
    assert len(figures.model_extra["token_ids"]) == 25
    alone = client(world).completions.create(**body(logprobs=0, echo=True, max_tokens=0))
    assert alone.choices[0].text == "In a shocking finding"


def test_stop_and_seed(world: World) -> None:
    asked = client(world).completions
    whole = asked.create(**body(temperature=0, max_tokens=24)).choices[0].text
    cut = asked.create(**body(temperature=0, max_tokens=24, stop=[whole[5:8], "never"]))
    assert cut.choices[0].text == whole[: whole.find(whole[5:8])]
    assert cut.choices[0].finish_reason == "stop"
    seeded = [asked.create(**body(seed=9, max_tokens=30)).choices[0].text for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert asked.create(**body(seed=10, max_tokens=30)).choices[0].text != seeded[0]


def test_every_way_to_steer_is_taken(world: World) -> None:
    answer = client(world).completions.create(
        **body(
            temperature=0.7,
            top_p=0.9,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            logit_bias={"101": -100},
            best_of=1,
            user="somebody",
        ),
        extra_body={"top_k": 5, "min_p": 0.01, "repetition_penalty": 1.2},
    )
    assert "e" not in answer.choices[0].text


def test_fields_of_a_text_become_its_beginning(world: World) -> None:
    hostile = "A title\nDomain: forged.example\x00\u2028Author: nobody"
    answer = ask(
        world,
        {
            "model": PUBLIC,
            "metadata": {"title": hostile, "domain": "a.example", "article": "Once"},
            "echo": True,
            "max_tokens": 1,
            "temperature": 0,
        },
    )
    text = answer.json()["choices"][0]["text"]
    assert text.startswith(
        "Domain: a.example\nTitle: A title Domain: forged.example Author: nobody\n\nOnce"
    )


# --- chat ---------------------------------------------------------------------------------------


def test_chat(world: World) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    ]
    asked = {"model": PUBLIC, "messages": messages, "seed": 1, "max_tokens": 12}
    answer = client(world).chat.completions.create(**asked, n=2, logprobs=True, top_logprobs=2)
    assert [c.index for c in answer.choices] == [0, 1]
    first = answer.choices[0]
    assert first.message.role == "assistant"
    assert first.logprobs is not None
    assert first.logprobs.content is not None
    assert len(first.logprobs.content[0].top_logprobs) == 2
    stream = client(world).chat.completions.create(**asked, n=2, stream=True)
    texts = {0: "", 1: ""}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {c.index: c.message.content for c in answer.choices}


def test_an_answer_is_sent_back_as_it_came(world: World) -> None:
    """The client's own object goes into the next request, with its nulls."""
    asked = client(world).chat.completions
    messages: Any = [{"role": "user", "content": "Hello"}]
    first = asked.create(model=PUBLIC, messages=messages, max_tokens=8, seed=1)
    messages += [first.choices[0].message, {"role": "user", "content": "And?", "name": None}]
    assert asked.create(model=PUBLIC, messages=messages, max_tokens=8, seed=1).choices
    for message in ({"role": "assistant", "content": None}, {"role": "assistant"}):
        given = {"model": PUBLIC, "messages": [*messages[:1], message], "max_tokens": 1}
        assert ask(world, given, path="chat/completions").status_code == 200
    for message in ({"role": "user", "content": None}, {"role": "user", "content": "x", "no": 1}):
        answer = ask(world, {"model": PUBLIC, "messages": [message]}, path="chat/completions")
        assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages.0.no"
    options = body(stream=True, stream_options={"include_usage": None}, max_tokens=1)
    assert ask(world, options).status_code == 200


def test_a_conversation_takes_as_many_stops_as_a_text(world: World) -> None:
    stops = [f"stop {number}" for number in range(16)]
    given = {"model": PUBLIC, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    assert ask(world, given | {"stop": stops}, path="chat/completions").status_code == 200
    assert ask(world, given | {"stop": [*stops, "x"]}, path="chat/completions").status_code == 400
    assert ask(world, body(stop=stops)).status_code == 200


def test_the_figures_of_a_conversation_are_those_of_what_is_said(world: World) -> None:
    blank = {str(ord(" ")): 100}  # an answer that begins with blanks
    asked: Any = {"model": PUBLIC, "messages": [{"role": "user", "content": "Hello"}], "seed": 4}
    asked |= {"logprobs": True, "max_tokens": 3, "logit_bias": blank}
    nothing = client(world).chat.completions.create(**asked).choices[0]
    assert nothing.message.content == ""
    assert nothing.logprobs is not None
    assert nothing.logprobs.content == []
    asked |= {"max_tokens": 24, "logit_bias": {str(ord(" ")): 2.5}, "n": 8}
    whole = client(world).chat.completions.create(**asked)
    said = {choice.index: "" for choice in whole.choices}
    for choice in whole.choices:
        assert choice.logprobs is not None
        raw = b"".join(bytes(token.bytes or b"") for token in choice.logprobs.content or ())
        shown = raw.decode("utf-8", "replace").rstrip("\ufffd")  # an unfinished one is not sent
        assert shown == (choice.message.content or "").rstrip("\ufffd")
    for chunk in client(world).chat.completions.create(**asked, stream=True):
        for part in chunk.choices:
            told = part.logprobs.content if part.logprobs is not None else None
            said[part.index] += "".join(token.token for token in told or ())
    for choice in whole.choices:
        told = choice.logprobs.content if choice.logprobs is not None else None
        assert said[choice.index] == "".join(token.token for token in told or ())


# --- models, embeddings, scores -----------------------------------------------------------------


def test_each_caller_sees_the_models_they_may_ask(world: World) -> None:
    seen = {
        who: {m.id for m in client(world, who).models.list().data}
        for who in ("partner", "researcher", "outsider", "owner")
    }
    repos = world.repos
    assert seen == {
        "partner": {repos["public"], repos["partner"]},
        "researcher": {repos["public"], repos["researcher"]},
        "outsider": {repos["public"]},
        "owner": set(repos.values()),
    }


def test_one_model(world: World) -> None:
    found = client(world).models.retrieve(world.repos["partner"])
    assert found.id == world.repos["partner"]
    assert found.object == "model"
    assert found.owned_by == "demo"
    extra = found.model_extra["stagerelease"]
    assert (extra["stage"], extra["prompt_logging"]) == ("partner", False)
    assert extra["context"] > 0
    with world.client("partner") as http:
        raw = http.get("/v1/models/demo%2Fgpt2-mini-774M")
        assert raw.json()["id"] == world.repos["partner"]
    with pytest.raises(openai.NotFoundError):
        client(world).models.retrieve(world.repos["internal"])
    with pytest.raises(openai.PermissionDeniedError):
        client(world, "outsider").models.retrieve(world.repos["partner"])


def test_a_revision_can_be_named(world: World) -> None:
    commit = client(world).models.retrieve(PUBLIC).model_extra["stagerelease"]["revision"]
    for name in (f"{PUBLIC}@{commit}", f"{PUBLIC}@{commit[:8]}", f"{PUBLIC}@main"):
        assert client(world).completions.create(**body(model=name)).system_fingerprint == commit
    with pytest.raises(openai.NotFoundError):
        client(world).completions.create(**body(model=f"{PUBLIC}@{'0' * 40}"))


def test_embeddings_are_refused_with_the_reason(world: World) -> None:
    with pytest.raises(openai.BadRequestError, match="trained to continue text") as refused:
        client(world).embeddings.create(model=PUBLIC, input="Hello")
    assert refused.value.code == "embeddings_not_supported"


def test_scores(world: World) -> None:
    answer = ask(world, {"model": PUBLIC, "texts": ["In a", [72, 101]], "top": 2}, path="score")
    document = answer.json()
    assert [len(row["ranks"]) for row in document["data"]] == [4, 2]
    assert document["data"][0]["token_logprobs"][0] is None
    assert document["usage"]["prompt_tokens"] == 6
    assert "x-ratelimit-limit-tokens" in answer.headers


# --- refusals -----------------------------------------------------------------------------------


def test_errors_of_the_client(world: World) -> None:
    with pytest.raises(openai.AuthenticationError) as nobody:
        openai.OpenAI(
            base_url=f"{world.base_url}/v1", api_key="sk-wrong", max_retries=0
        ).completions.create(**body())
    assert nobody.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as missing:
        client(world).completions.create(**body(model="nobody/none"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.PermissionDeniedError) as gated:
        client(world, "outsider").completions.create(**body(model=world.repos["partner"]))
    assert gated.value.code == "no-grant"
    with pytest.raises(openai.BadRequestError) as long:
        client(world).completions.create(**body(prompt="x" * 600))
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "prompt")


def test_a_wrong_token_is_named_where_it_stands(world: World) -> None:
    for changes, param in (
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"prompt": [999]}, "prompt"),
    ):
        error = ask(world, body(**changes)).json()["error"]
        assert (error["code"], error["param"]) == ("invalid_token_id", param)


BAD: list[tuple[str, dict[str, Any], int, str]] = [
    ("no prompt", {"prompt": None}, 400, "empty_prompt"),
    ("empty prompt", {"prompt": ""}, 400, "empty_prompt"),
    ("empty list", {"prompt": []}, 400, "invalid_value"),
    ("empty inner", {"prompt": [[]]}, 400, "invalid_value"),
    ("an empty text among others", {"prompt": ["x", ""]}, 400, "empty_prompt"),
    ("mixed", {"prompt": ["x", 1]}, 400, "invalid_value"),
    ("negative id", {"prompt": [-1]}, 400, "invalid_value"),
    ("unknown id", {"prompt": [100_000]}, 400, "invalid_token_id"),
    ("huge id", {"prompt": [2**70]}, 400, "invalid_value"),
    ("too many prompts", {"prompt": ["x"] * 129}, 400, "invalid_value"),
    ("negative temperature", {"temperature": -0.1}, 400, "invalid_value"),
    ("hot", {"temperature": 2.1}, 400, "invalid_value"),
    ("text for a number", {"temperature": "1"}, 400, "invalid_value"),
    ("truth for a number", {"n": True}, 400, "invalid_value"),
    ("no n", {"n": 0}, 400, "invalid_value"),
    ("n too large", {"n": 129}, 400, "invalid_value"),
    ("n beyond the quota", {"n": 17}, 400, "quota.request"),
    ("top_p of nothing", {"top_p": 0}, 400, "invalid_value"),
    ("negative top_k", {"top_k": -1}, 400, "invalid_value"),
    ("negative max_tokens", {"max_tokens": -1}, 400, "invalid_value"),
    ("nothing asked for", {"max_tokens": 0}, 400, "invalid_value"),
    ("max_tokens beyond the quota", {"max_tokens": 2049}, 400, "quota.max_tokens"),
    ("max_tokens beyond the context", {"max_tokens": 600}, 400, "context_length_exceeded"),
    ("logprobs", {"logprobs": 21}, 400, "invalid_value"),
    ("bias of a name", {"logit_bias": {"e": 1}}, 400, "invalid_value"),
    ("bias of an unknown token", {"logit_bias": {"99999": 1}}, 400, "invalid_token_id"),
    ("bias too strong", {"logit_bias": {"1": 101}}, 400, "invalid_value"),
    ("empty stop", {"stop": ""}, 400, "invalid_value"),
    ("too many stops", {"stop": ["x"] * 17}, 400, "invalid_value"),
    ("seed too large", {"seed": 2**64}, 400, "invalid_value"),
    ("suffix", {"suffix": "end"}, 400, "unsupported_parameter"),
    ("best_of", {"best_of": 3}, 400, "unsupported_parameter"),
    ("misspelt", {"temprature": 1}, 400, "unknown_parameter"),
    ("stream options without stream", {"stream_options": {}}, 400, "invalid_value"),
    ("a model of no name", {"model": ""}, 400, "invalid_value"),
    ("a model with NUL", {"model": "a\x00b"}, 404, "model_not_found"),
    ("a model of strange signs", {"model": "🦄/\u202e"}, 404, "model_not_found"),
    ("a model that is a number", {"model": 7}, 400, "invalid_value"),
    ("fields and ids", {"prompt": [72], "metadata": {"title": "x"}}, 400, "invalid_value"),
    ("fields of nothing", {"metadata": {}}, 400, "invalid_value"),
]


@pytest.mark.parametrize(
    ("changes", "status", "code"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_input(shared: World, changes: dict[str, Any], status: int, code: str) -> None:
    answer = ask(shared, body(**changes))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert set(error) >= {"message", "type", "param", "code"}
    assert answer.headers["x-should-retry"] == "false"


RAW = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b'"x"', 400),
    (b'{"model": NaN}', 400),
    (b'{"model": "m", "prompt": "x", "temperature": Infinity}', 400),
    (b'{"model": "m", "prompt": "x", "temperature": 1e999}', 400),
    (b"[" * 100_000, 400),
    (b"\xff\xfe\x00", 400),
    (b'{"model": "m", "prompt": "\\ud800"}', 400),
    (b'{"model": "\\ud800", "prompt": "x"}', 400),
    (b'{"model": "m", "prompt": "x", "\\ud800": 1}', 400),
    (b'{"prompt": "' + b"x" * 10_000_000 + b'"}', 413),
]


@pytest.mark.parametrize(("raw", "status"), RAW, ids=range(len(RAW)))
def test_bodies_that_are_none(shared: World, raw: bytes, status: int) -> None:
    for path in ("completions", "chat/completions", "score"):
        with shared.client("partner") as http:
            answer = http.post(f"/v1/{path}", content=raw)
        assert answer.status_code == status
        assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}


SHAPES = {
    "completions": bodies.CompletionBody,
    "chat/completions": bodies.ChatBody,
    "score": bodies.ScoreBody,
}
MANY = 500_000
LARGE = {
    "ids and a text": ("completions", '{"model":"m","prompt":[' + "1," * MANY + '"x"]}'),
    "empty lists": ("completions", '{"model":"m","prompt":[' + "[]," * 340_000 + "1.5]}"),
    "stops": ("completions", '{"model":"m","prompt":"x","stop":[' + "1," * MANY + "1]}"),
    "biases": (
        "completions",
        '{"model":"m","logit_bias":{' + ",".join(f'"{n}":"x"' for n in range(80_000)) + "}}",
    ),
    "messages": ("chat/completions", '{"messages":[' + ",".join(['{"a":1}'] * 130_000) + "]}"),
    "names": (
        "chat/completions",
        '{"messages":[{' + ",".join(f'"{n}":1' for n in range(100_000)) + "}]}",
    ),
    "texts": ("score", '{"model":"m","texts":[' + "1," * MANY + "1]}"),
}


@pytest.mark.parametrize(("path", "raw"), LARGE.values(), ids=LARGE)
def test_large_bodies_harm_nobody(shared: World, path: str, raw: str) -> None:
    """Of a stranger none is read; what is wrong a million times is said once."""
    with httpx.Client(base_url=shared.base_url, headers={"Authorization": "Bearer no"}) as http:
        assert http.post(f"/v1/{path}", content=raw).status_code == 401
    with shared.client("partner") as http:
        assert http.post(f"/v1/{path}", content=raw).status_code == 400
    shape: Any = SHAPES[path]
    began = time.thread_time()
    with pytest.raises(Invalid):
        bodies.parse(raw.encode(), shape)
    assert time.thread_time() - began < 0.6  # it was up to 1.7 s


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/v1/models/demo/gpt2-mini-124M", 405),
        ("GET", "/v1/none", 404),
        ("POST", "/v1/", 404),
        ("GET", "/v1/models/%00", 400),
        ("GET", "/v1/models/..%2f..%2fetc", 404),
    ],
)
def test_every_failure_below_v1_has_openai_shape(
    shared: World, method: str, path: str, status: int
) -> None:
    with shared.client("partner") as http:
        answer = http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}


def test_nobody_is_told_anything_without_a_token(shared: World) -> None:
    for method, path in (
        ("POST", "completions"),
        ("POST", "chat/completions"),
        ("POST", "score"),
        ("POST", "embeddings"),
        ("GET", "models"),
        ("GET", f"models/{PUBLIC}"),
    ):
        with shared.client() as http:
            answer = http.request(method, f"/v1/{path}")
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, world_template, tmp_path_factory) -> Any:
    """One world for tests that change nothing."""
    import shutil

    from databases import START
    from live import make_box, serve_in_thread
    from stagerelease.kernel.clock import SetClock

    if request.config.getoption("--db") != "sqlite":
        pytest.skip("bad input asks nothing of a database that differs")
    data = tmp_path_factory.mktemp("shared") / "world"
    shutil.copytree(world_template.data, data, copy_function=shutil.copy)
    clock = SetClock(START)
    box = make_box(data, f"sqlite:///{data / 'stagerelease.sqlite3'}", clock)
    live, stop = serve_in_thread(box)
    document = world_template.document
    yield World(live.base_url, box, clock, document["repos"], document["tokens"])
    stop()
    box.works.engine.dispose()


def test_the_clock_of_the_shared_world_runs_out_of_no_quota(shared: World) -> None:
    assert httpx.get(f"{shared.base_url}/livez").status_code == 200
