"""Speaks to another Hub-compatible endpoint, as a client that trusts nothing it is told.

HTTPS only, except to this machine itself. The token goes to the endpoint's own origin and nowhere
else, whatever redirects say. Every answer has a size limit; every file is checked against the
digest that the listing announced. Nothing here touches the database or the blob store.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import httpx

from stagerelease.catalog.rules import MAX_FILES
from stagerelease.kernel.digests import is_commit, is_sha256
from stagerelease.kernel.errors import (
    Corrupt,
    Forbidden,
    Gated,
    Invalid,
    NotFound,
    TooLarge,
    Unavailable,
)

T = TypeVar("T")
JSON_LIMIT = 16_000_000
ATTEMPTS = 6
REDIRECTS = 5
LONGEST_WAIT = 60.0
_RETRIED = frozenset({429, 500, 502, 503, 504})
_CHUNK = 1 << 20
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as the other side lists it: its digest is a SHA-256 (LFS) or a git blob id."""

    path: str
    size: int
    sha256: str | None
    git_oid: str | None


class _Broken(Exception):
    """An answer that may be asked for again after ``wait`` seconds."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_endpoint(url: str) -> str:
    """Return ``url`` without a trailing slash if bytes may be fetched from there.

    Raises:
        Invalid: neither HTTPS nor this machine, or it carries credentials.
    """
    try:
        parts = urlsplit(url)
        scheme, host, _ = _origin(url)
    except ValueError as error:
        raise Invalid(f"{url!r} is not a URL.", reason="mirror.url") from error
    if parts.username or parts.password or "@" in parts.netloc:
        raise Invalid(
            "The URL carries credentials.", reason="mirror.url", next_step="Use --token-file."
        )
    if not host or not (scheme == "https" or (scheme == "http" and _is_here(host))):
        raise Invalid(
            f"{url!r} is neither https:// nor this machine.",
            reason="mirror.insecure",
            next_step="Use the https:// address of that Hub.",
        )
    return url.rstrip("/")


class Mirror:
    """A client of one repository at one endpoint. A context manager."""

    def __init__(
        self,
        endpoint: str,
        repo_id: str,
        *,
        token: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._endpoint = check_endpoint(endpoint)
        self._home = _origin(self._endpoint)
        self._repo = repo_id
        self._token = token
        self._sleep = sleep
        self._client = httpx.Client(
            timeout=_TIMEOUT, follow_redirects=False, trust_env=True, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def commit(self, revision: str) -> str:
        """Return the 40-hex commit that ``revision`` means there."""
        url = f"{self._endpoint}/api/models/{self._repo}/revision/{quote(revision, safe='')}"
        answer, _ = self._json(url)
        sha = answer.get("sha") if isinstance(answer, dict) else None
        if not isinstance(sha, str) or not is_commit(sha):
            raise Corrupt(f"{self._repo} names no commit.", reason="mirror.answer")
        return sha

    def files(self, commit: str) -> list[Remote]:
        """Return every file of a commit, following the pages of the listing."""
        url = f"{self._endpoint}/api/models/{self._repo}/tree/{commit}?recursive=true&expand=false"
        found: list[Remote] = []
        while url:
            page, link = self._json(url)
            if not isinstance(page, list):
                raise Corrupt("The listing is not a list.", reason="mirror.answer")
            found += [_remote(e) for e in page if isinstance(e, dict) and e.get("type") == "file"]
            if len(found) > MAX_FILES:
                raise TooLarge(f"It lists more than {MAX_FILES:,} files.", reason="files.too-many")
            if link and (_origin(link) != self._home or link == url):
                raise Corrupt("The listing continues somewhere else.", reason="mirror.answer")
            url = link or ""
        return found

    def fetch(
        self, commit: str, file: Remote, target: Path, *, progress: Callable[[int], None]
    ) -> None:
        """Write one file to ``target``, going on where a broken transfer stopped, and verify it.

        Raises:
            Corrupt: the bytes are not those announced. Unavailable: it broke too often.
        """
        url = f"{self._endpoint}/{self._repo}/resolve/{commit}/{quote(file.path)}"
        with target.open("wb") as out:
            self._retrying(lambda: self._rest(url, file, out, progress))
        _verify(file, target)

    def _rest(self, url: str, file: Remote, out: BinaryIO, progress: Callable[[int], None]) -> None:
        have = out.tell()
        if have == file.size and have > 0:
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with self._get(url, headers) as response:
            if have and not _continues(response, have):
                out.seek(0)  # the whole body comes again
                out.truncate()
                have = 0
            for chunk in response.iter_raw():
                have += len(chunk)
                if have > file.size:
                    raise Corrupt(f"{file.path} is longer than announced.", reason="mirror.size")
                out.write(chunk)
                progress(have)
        if have < file.size:
            raise _Broken(f"{file.path} stopped at {have:,} of {file.size:,} bytes")

    def _json(self, url: str) -> tuple[Any, str | None]:
        def ask() -> tuple[Any, str | None]:
            body = bytearray()
            headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
            with self._get(url, headers) as response:
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    # It could unpack to gigabytes before anybody counts.
                    raise Corrupt("Its answer is packed, unasked.", reason="mirror.answer")
                for chunk in response.iter_bytes(_CHUNK):
                    body += chunk
                    if len(body) > JSON_LIMIT:
                        raise TooLarge("Its answer is too long.", reason="mirror.answer")
                link = response.links.get("next", {}).get("url")
            try:
                return json.loads(body), link
            except (ValueError, RecursionError) as error:
                raise Corrupt(f"{url} did not answer JSON.", reason="mirror.answer") from error

        return self._retrying(ask)

    def _retrying(self, act: Callable[[], T]) -> T:
        broken = _Broken("")
        for attempt in range(ATTEMPTS):
            if attempt:
                wait = broken.wait if broken.wait is not None else 0.5 * 2**attempt
                self._sleep(min(wait, LONGEST_WAIT))
            try:
                return act()
            except _Broken as error:
                broken = error
            except httpx.HTTPError as error:
                broken = _Broken(f"{type(error).__name__}")
        raise Unavailable(
            f"{self._endpoint} failed {ATTEMPTS} times: {broken}.",
            reason="mirror.unavailable",
            retry_after=60,
        )

    @contextmanager
    def _get(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Ask for ``url``, follow redirects by our own rules, and yield a good answer."""
        for _ in range(REDIRECTS + 1):
            sent = dict(headers)
            if self._token is not None and _origin(url) == self._home:
                sent["Authorization"] = f"Bearer {self._token}"
            with self._client.stream("GET", url, headers=sent) as response:
                if response.is_redirect:
                    url = self._onward(url, response.headers.get("location", ""))
                    continue
                self._judge(url, response)
                yield response
                return
        raise Corrupt("It redirects in circles.", reason="mirror.redirect")

    def _onward(self, url: str, location: str) -> str:
        target = check_endpoint(urljoin(url, location))
        # A far endpoint must not make this machine talk to itself.
        if _is_here(_origin(target)[1]) and not _is_here(self._home[1]):
            raise Invalid("It redirects to this machine.", reason="mirror.redirect")
        return target

    def _judge(self, url: str, response: httpx.Response) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        said = response.headers.get("x-error-message", "")[:300] or f"HTTP {status}"
        if status in _RETRIED:
            after = response.headers.get("retry-after", "")
            raise _Broken(said, float(after) if after.isdigit() else None)
        if response.headers.get("x-error-code") == "GatedRepo":
            raise Gated(f"{self._repo} is gated there: {said}.", reason="mirror.gated")
        if status in (401, 403):
            raise Forbidden(f"{self._repo} is refused there: {said}.", reason="mirror.refused")
        if status == 404:
            raise NotFound(f"{urlsplit(url).path} is not there: {said}.", reason="mirror.unknown")
        if status == 416:
            raise _Broken(said)
        raise Unavailable(f"{self._endpoint} answered {said}.", reason="mirror.unavailable")


def _continues(response: httpx.Response, have: int) -> bool:
    said = response.headers.get("content-range", "")
    return response.status_code == 206 and said.startswith(f"bytes {have}-")


def _remote(entry: Mapping[str, Any]) -> Remote:
    lfs = entry.get("lfs")
    path, size, oid = entry.get("path"), entry.get("size"), entry.get("oid")
    sha256 = None
    if isinstance(lfs, dict):
        sha256, size = lfs.get("oid"), lfs.get("size", size)
    good = isinstance(path, str) and isinstance(size, int) and size >= 0
    if sha256 is not None:
        good = good and isinstance(sha256, str) and is_sha256(sha256)
    else:
        good = good and isinstance(oid, str) and is_commit(oid)
    if not good:
        sentence = "The listing has an entry without path, size or digest."
        raise Corrupt(sentence, reason="mirror.answer")
    return Remote(path=str(path), size=int(size or 0), sha256=sha256, git_oid=oid)


def _verify(file: Remote, target: Path) -> None:
    if file.sha256 is not None:
        digest, expected = hashlib.sha256(), file.sha256
    else:  # git's object id: SHA-1 over "blob <size>\0" and the bytes
        digest = hashlib.sha1(b"blob %d\x00" % file.size, usedforsecurity=False)
        expected = file.git_oid or ""
    with target.open("rb") as reader:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected or target.stat().st_size != file.size:
        raise Corrupt(
            f"{file.path} hashes to {digest.hexdigest()}, and {expected} was announced.",
            reason="mirror.digest",
            next_step="Try again; if it stays, ask whoever runs that endpoint.",
        )
