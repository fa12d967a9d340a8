"""Bad input gets a clear refusal in one shape (RFC 9457), and nothing is stored."""

from __future__ import annotations

import json
import socket

import pytest

PEOPLE = "/api/v1/people"
GOOD = {"handle": "ann", "display_name": "Ann"}


def problem(response) -> dict:
    assert response.headers["content-type"] == "application/problem+json", response.text
    found = response.json()
    assert found["status"] == response.status_code
    assert found["title"]
    assert found["detail"]
    assert found["code"]
    return found


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({**GOOD, "admin": True}, 422),
        ({"handle": "ann"}, 422),
        ({**GOOD, "handle": 7}, 422),
        ({**GOOD, "handle": "A B"}, 422),
        ({**GOOD, "display_name": ""}, 422),
        ({**GOOD, "display_name": "x" * 5000}, 422),
        ({**GOOD, "kind": "god"}, 422),
        ([], 422),
        (None, 422),
        ("text", 422),
    ],
)
def test_what_is_not_of_the_form_is_named_field_by_field(world, body, status):
    with world.client("owner") as client:
        got = client.post(PEOPLE, json=body)
        assert got.status_code == status
        found = problem(got)
        assert found["fields"]
        assert all(f["field"] and f["sentence"] for f in found["fields"])
        assert len(client.get(PEOPLE).json()) == 11  # the demo's people, and nobody else


def test_text_that_is_not_json(world):
    with world.client("owner") as client:
        for text in ("{", "nul", '{"handle": "ann"', "\xff\xfe", "[" * 100_000):
            got = client.post(
                PEOPLE, content=text.encode("latin-1"), headers={"Content-Type": "application/json"}
            )
            assert got.status_code in (400, 422)
            problem(got)


def test_a_body_that_is_too_large_is_refused_by_its_stated_and_by_its_real_size(world):
    large = json.dumps({**GOOD, "display_name": "x" * 2_000_000}).encode()

    def pieces():
        for i in range(0, len(large), 65536):
            yield large[i : i + 65536]

    headers = {"Content-Type": "application/json"}
    with world.client("owner") as client:
        stated = client.post(PEOPLE, content=large, headers=headers)
        assert stated.status_code == 413
        assert problem(stated)["next_step"]
    with world.client("owner") as client:
        real = client.post(PEOPLE, content=pieces(), headers=headers)
        assert real.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/promotions/99999999999999999999",
        "/api/v1/promotions/-1",
        "/api/v1/promotions/x",
        "/api/v1/grants/%00",
        "/api/v1/grants/" + "x" * 5000,
        "/api/v1/people?limit=0",
        "/api/v1/people?limit=100000",
        "/api/v1/log/proof/-1",
        "/api/v1/log/entries?start=99999999999999999999999",
        "/%00/x/resolve/main/f",
        "/demo/..%2f..%2fetc/resolve/main/passwd",
        "/demo/gpt2-mini-124M/resolve/main/..%2f..%2f..%2fetc%2fpasswd",
        "/demo/gpt2-mini-124M/resolve/main/" + "%2e%2e%2f" * 20 + "etc/passwd",
        "/demo/gpt2-mini-124M/resolve/%00/x",
        "/demo/gpt2-mini-124M/resolve/main/%0d%0aSet-Cookie:%20a=b",
        "/api/models/demo/gpt2-mini-124M/revision/%0d%0aX:%20y",
        "/api/models/demo/gpt2-mini-124M/tree/main/" + "a/" * 500,
        "/api/models?limit=-5",
        "/api/models?search=" + "%f0%9f%98%80" * 100,
        "/api/models/%ff%fe/x",
    ],
)
def test_hostile_addresses_are_refused_quietly(world, path):
    with world.client("owner") as client:
        got = client.get(path)
    assert 200 <= got.status_code < 500 or got.status_code == 404
    assert got.status_code != 500
    assert "root:" not in got.text
    assert "set-cookie" not in got.headers
    assert "Traceback" not in got.text


FAR = ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "2201-01-01T00:00:00Z")


@pytest.mark.parametrize("far", FAR)
def test_an_instant_at_the_end_of_the_calendar_is_refused_in_words(world, far):
    """In UTC it would be in no year at all; arithmetic on it failed, which was a fault of ours."""
    token = {"name": "x", "expires_at": far}
    member = {"person": "demo-outsider", "ends_at": far}
    asked = (
        ("POST", "/api/v1/tokens", {"json": token}),
        (
            "POST",
            "/api/v1/people/demo-outsider/roles",
            {"json": {"role": "auditor", "ends_at": far}},
        ),
        ("POST", "/api/v1/organisations/demo-lab/members", {"json": member}),
        ("POST", "/api/v1/grants/x/renew", {"json": {"valid_until": far}}),
        ("GET", "/api/v1/grants/holders", {"params": {"at": far}}),
        ("GET", "/api/v1/organisations/demo-lab/members", {"params": {"at": far}}),
        ("GET", "/api/v1/usage", {"params": {"since": far}}),
        ("GET", "/feed.json", {"params": {"before": far}}),
    )
    with world.client("owner") as client:
        for method, path, sent in asked:
            got = client.request(method, path, **sent)
            assert got.status_code == 422, (path, got.status_code, got.text)
            said = [f["sentence"] for f in problem(got)["fields"]]
            assert said == ["An instant is from a year between 1900 and 2200, in UTC."], path
        assert client.get("/", params={"after": f"{far}~0"}).status_code == 200


def raw(world, data: bytes) -> bytes:
    host, port = world.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
    return found


def test_a_broken_request_line_and_smuggled_lengths_are_refused(world):
    for data in (
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /api/v1/people HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
    ):
        answer = raw(world, data)
        assert b" 500 " not in answer[:20]


def test_a_token_in_an_error_is_never_repeated(world):
    token = world.tokens["partner"]
    with world.client("partner") as client:
        got = client.post(PEOPLE, json={"handle": token, "display_name": token})
    assert token not in got.text
