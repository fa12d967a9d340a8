"""An installation behind the very nginx files of deploy/: web, worker and edge as processes.

nginx runs as another user than the app, in its group, as in docker-compose.yml, when the tests
run as root; without root it runs as the same user, and modes are not proved.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from live import free_port
from small_engine import SmallEngine
from stagerelease.bootstrap import Box
from stagerelease.catalog import queries as catalog
from stagerelease.catalog.tables import Blob, RevisionFile
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import upgrade
from stagerelease.db.work import Work, Works
from stagerelease.demo import world as demo
from stagerelease.downloads.tables import Download, EdgePassage, Transfer
from stagerelease.identity import queries as people
from stagerelease.identity import service as identity
from stagerelease.identity.links import load_or_create_link_key
from stagerelease.kernel.actor import OPERATOR, Actor
from stagerelease.ledger.signer import load_or_create_signer
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import service as partners
from stagerelease.settings import Settings
from stagerelease.storage.local import LocalBlobStore

ROOT = Path(__file__).resolve().parents[2]
BIG = 256 << 20
NOBODY = 65534


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return the first truth that ``what`` tells, or fail when it tells none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class Site:
    """The running installation, and how tests look into it."""

    base: Path
    box: Box
    document: dict[str, Any]
    origin: str
    web_port: int
    big_url: str
    big_sha256: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def ca(self) -> Path:
        return self.base / "secrets" / "ca.pem"

    @property
    def edge_log(self) -> Path:
        return self.base / "log" / "edge.log"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    def token(self, who: str) -> str:
        return str(self.document["tokens"][who])

    def repo(self, stage: str) -> str:
        return str(self.document["repos"][stage])

    def client(self, who: str | None = None, **options: Any) -> httpx.Client:
        """Return an HTTPS client through the edge."""
        headers = {"Authorization": f"Bearer {self.token(who)}"} if who else {}
        trust = ssl.create_default_context(cafile=str(self.ca))
        transport = httpx.HTTPTransport(verify=trust, **options)
        return httpx.Client(base_url=self.origin, headers=headers, transport=transport, timeout=15)

    def hf_environ(self, who: str, home: Path) -> dict[str, str]:
        """Return the environment of an unmodified Hub client that acts as ``who``."""
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "STAGERELEASE_"))},
            "HF_ENDPOINT": self.origin,
            "HF_TOKEN": self.token(who),
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "SSL_CERT_FILE": str(self.ca),
        }

    def actor(self, who: str) -> Actor:
        with self.box.works.begin(read_only=True) as work:
            return identity.authenticate(work, self.token(who))

    def rows(self, statement: Any) -> list[Any]:
        with self.box.works.begin(read_only=True) as work:
            return list(work.session.execute(statement).all())

    def transfers(self, who: str, path: str) -> list[tuple[str, int, int]]:
        """Return outcome, first byte and count of what one person was sent of a file."""
        statement = (
            select(Transfer.outcome, Transfer.first_byte, Transfer.bytes_sent)
            .join(Download, Download.id == Transfer.download_id)
            .where(Download.person_id == self.actor(who).id, Download.path == path)
            .order_by(Transfer.at, Transfer.first_byte)
        )
        return [tuple(row) for row in self.rows(statement)]

    def under_way(self) -> int:
        return len(self.rows(select(EdgePassage.id)))

    def logs(self) -> dict[str, str]:
        """Return everything this installation has written down outside its database."""
        return {path.name: path.read_text() for path in (self.base / "log").iterdir()}

    # --- processes ------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start ``web``, ``worker``, ``edge`` or ``inference`` (with the small engine)."""
        out = (self.base / "log" / f"{name}.out").open("ab")
        starts = {"web": self._app, "worker": self._app, "edge": self._edge}
        start = (starts | {"inference": self._small_engine})[name]
        command, environ = start({"web": "serve", "worker": "work"}.get(name, ""))
        self.processes[name] = subprocess.Popen(
            command, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        out.close()

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End one process by a signal, and wait for it."""
        process = self.processes.pop(name)
        if number == signal.SIGKILL:  # uvicorn's children too: as when the machine takes it away
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise

    def _environ(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith("STAGERELEASE_")}

    def _app(self, command: str) -> tuple[list[str], dict[str, str]]:
        mine = {
            "STAGERELEASE_DATA_DIR": str(self.base / "data"),
            "STAGERELEASE_PORT": str(self.web_port),
            "STAGERELEASE_WEB_PROCESSES": "2",
            "STAGERELEASE_PUBLIC_URL": self.origin,
            "STAGERELEASE_TRUSTED_PROXIES": "127.0.0.1",
            "STAGERELEASE_LOG_ORIGIN": "test.example/log",
            "STAGERELEASE_DELIVERY": "accel",
            "STAGERELEASE_EDGE_LOG": str(self.edge_log),
            "STAGERELEASE_EDGE_SECRET_FILE": str(self.base / "secrets" / "edge_secret"),
        }
        return [sys.executable, "-m", "stagerelease", command], self._environ() | mine

    def _small_engine(self, _: str) -> tuple[list[str], dict[str, str]]:
        socket = f"unix:{self.base / 'data' / 'run' / 'infer.sock'}"
        server = ROOT / "tests" / "small_server.py"
        return [sys.executable, str(server), socket, "0.03", "10"], self._environ()

    def _edge(self, _: str) -> tuple[list[str], dict[str, str]]:
        secrets = self.base / "secrets"
        mine = {
            "EDGE_UPSTREAM": f"127.0.0.1:{self.web_port}",
            "EDGE_LISTEN": self.origin.removeprefix("https://localhost:"),
            "EDGE_SECRET_FILE": str(secrets / "edge_secret"),
            "EDGE_TLS_CERT": str(secrets / "tls_cert.pem"),
            "EDGE_TLS_KEY": str(secrets / "tls_key.pem"),
            "EDGE_BLOBS": str(self.base / "data" / "blobs"),
            "EDGE_RUN": str(self.base / "run"),
            "EDGE_LOG": str(self.edge_log),
            "EDGE_ACCESS_LOG": str(self.base / "log" / "access.log"),
            "EDGE_WORKERS": "2",
        }
        command = ["sh", str(ROOT / "deploy" / "nginx" / "start.sh")]
        if os.geteuid() == 0:
            command = [
                "setpriv",
                *("--reuid", str(NOBODY), "--regid", str(os.getegid()), "--clear-groups"),
                *command,
            ]
        return command, self._environ() | mine


def _make_box(data: Path) -> Box:
    data.mkdir(mode=0o750)
    url = f"sqlite:///{data / 'stagerelease.sqlite3'}"
    engine = make_engine(url)
    upgrade(engine)
    return Box(
        settings=Settings(data_dir=data, database_url=url),
        works=Works(engine),
        blobs=LocalBlobStore(data / "blobs"),
        signer=load_or_create_signer(data / "keys" / "log.key", "test.example/log"),
        link_key=load_or_create_link_key(data / "keys" / "links.key"),
        engine=SmallEngine(),
    )


def _track_id(work: Work, repo_id: str) -> str:
    return demo._track(work, repo_id).id


def _let_in_the_other_partner(box: Box, document: dict[str, Any]) -> None:
    """Give partner B what partner A has: somebody a cut must not harm."""
    with box.works.begin(read_only=True) as work:
        signer = identity.authenticate(work, document["tokens"]["other_partner"])
        officer = identity.authenticate(work, document["tokens"]["access_officer"])
    demo._sign(box.works, signer, "model-sharing", organisation="partner-b")
    with box.works.begin(officer) as work:
        partners.issue_grant(
            work,
            track_id=_track_id(work, document["repos"]["partner"]),
            organisation="partner-b",
            permissions=("download",),
            purpose="Not to be harmed.",
            valid_until=work.now + timedelta(days=30),
        )


def _add_big_file(box: Box, repo_id: str) -> tuple[str, str]:
    """Put a large file beside the repository's own; no two blocks of it are equal."""
    noise = random.Random(774)
    with box.blobs.writer() as writer:
        for _ in range(BIG >> 20):
            writer.write(noise.randbytes(1 << 20))
        stored = writer.commit()
    with box.works.begin(OPERATOR) as work:
        variant = catalog.load_variant(work, repo_id)
        commit = catalog.find_ref(work, variant.id, "main")
        work.session.add(Blob(sha256=stored.sha256, size=BIG, created_at=work.now))
        work.session.flush()
        work.session.add(
            RevisionFile(
                revision_id=commit,
                path="big.safetensors",
                size=BIG,
                sha256=stored.sha256,
                git_oid="0" * 40,
                lfs=True,
                kind="weights",
            )
        )
    return f"/{repo_id}/resolve/{commit}/big.safetensors", stored.sha256


@contextmanager
def running_site() -> Iterator[Site]:
    """Lay the demo world down, start web, worker and edge over it, and end them."""
    for tool in ("nginx", "curl", "envsubst", "openssl"):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is not installed. Debian: make system-packages")
    base = Path(tempfile.mkdtemp(prefix="edge-"))  # pytest's own directories are closed to nginx
    try:
        base.chmod(0o755)
        port, web_port = free_port(), free_port()
        origin = f"https://localhost:{port}"
        box = _make_box(base / "data")
        document = demo.lay_down(
            box.works, box.blobs, box.settings, base_url=origin, say=lambda _: None
        )
        _let_in_the_other_partner(box, document)
        big_url, big_sha256 = _add_big_file(box, document["repos"]["partner"])
        secrets = base / "secrets"
        made = ["sh", ROOT / "deploy" / "make-secrets.sh", secrets, "localhost", "127.0.0.1"]
        subprocess.run(made, check=True, capture_output=True)
        secrets.chmod(0o755)  # mounted one by one in compose
        for name in ("log", "run"):
            (base / name).mkdir(mode=0o770)
            if os.geteuid() == 0:
                os.chown(base / name, NOBODY, os.getegid())
        site = Site(base, box, document, origin, web_port, big_url, big_sha256)
        try:
            for name in ("web", "worker", "edge"):
                site.start(name)
            wait_for(lambda: _answers(site), 40)
            yield site
        finally:
            for name in list(site.processes):
                site.stop(name)
            box.works.engine.dispose()
    finally:
        shutil.rmtree(base)


def _answers(site: Site) -> bool:
    for name, process in site.processes.items():
        if process.poll() is not None:
            raise AssertionError(f"{name} ended: {site.logs()[name + '.out'][-2000:]}")
    try:
        with site.client() as client:
            return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class SlowReader:
    """Somebody who reads a body at ``rate`` bytes a second, with small buffers, in this thread."""

    site: Site
    who: str
    rate: float
    got: int = 0
    ended_at: float = 0.0
    complete: bool = False
    error: str = ""

    def read(self) -> None:
        """Read until the body ends, whole or not."""
        small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)]
        try:
            with (
                self.site.client(self.who, socket_options=small) as client,
                client.stream("GET", self.site.big_url) as answer,
            ):
                assert answer.status_code == 200
                for piece in answer.iter_raw(65536):
                    self.got += len(piece)
                    time.sleep(len(piece) / self.rate)
                self.complete = True
        except httpx.TransportError as error:
            self.error = type(error).__name__
        finally:
            self.ended_at = time.monotonic()


def revoke_grant_of(site: Site, organisation: str) -> None:
    """Revoke the organisation's grant on the partner release."""
    with site.box.works.begin(site.actor("access_officer")) as work:
        (grant,) = [
            grant
            for grant in partner_queries.list_grants(
                work, track_id=_track_id(work, site.repo("partner"))
            )
            if grant.organisation_id == people.load_organisation(work, organisation).id
            and grant.state == "active"
        ]
        partners.revoke_grant(work, grant.id, reason="The agreement was broken.")


def sha256_of(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()
