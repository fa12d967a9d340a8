"""Running the service: serve, work, infer, up, migrate, doctor, demo."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvicorn

from stagerelease import worker
from stagerelease.bootstrap import build, build_engine, inference_secret
from stagerelease.cli.box import CHOICES, Screen, opened
from stagerelease.db.migrate import check_schema
from stagerelease.demo import world
from stagerelease.engine.absent import AbsentEngine
from stagerelease.engine.pages import begin_with_large_pages
from stagerelease.engine.ports import Engine
from stagerelease.engine.serving import bind_socket, bind_tcp
from stagerelease.engine.serving import serve as serve_engine
from stagerelease.kernel.errors import DomainError, Invalid, Unavailable
from stagerelease.logs import configure_logs
from stagerelease.settings import Settings, read_settings
from stagerelease.supervisor.devca import DevTls, make_dev_tls, trust_instructions
from stagerelease.supervisor.processes import Supervisor, children_of

GROUPS: dict[str, typer.Typer] = {}

Cert = Annotated[Path | None, typer.Option("--tls-cert", help="Certificate chain, PEM.")]
Key = Annotated[Path | None, typer.Option("--tls-key", help="Private key, PEM.")]
TlsDev = Annotated[bool, typer.Option("--tls-dev", help="HTTPS with a CA made for this machine.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands that stand by themselves."""
    for function in (up, serve, work, infer, migrate, doctor, demo):
        app.command(function.__name__)(function)


def _settings(**changes: object) -> Settings:
    given = {name: value for name, value in changes.items() if value is not None}
    return read_settings(os.environ).model_copy(update=given)


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Invalid(
                f"{host}:{port} cannot be listened on: {error.strerror}.",
                reason="port",
                next_step=f"Stop what listens there, or choose another: PORT={port + 1}.",
            ) from error


def _uvicorn(settings: Settings) -> None:
    uvicorn.run(
        "stagerelease.asgi:web",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.web_processes if settings.web_processes > 1 else None,
        loop="uvloop",
        http="stagerelease.http.protocol:LinkedProtocol",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        ssl_certfile=str(settings.tls_cert) if settings.tls_cert else None,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
        log_config=None,  # its own handlers would write tracebacks unmasked
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=20,
        limit_concurrency=2000,
    )


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    tls_cert: Cert = None,
    tls_key: Key = None,
) -> None:
    """Serve HTTP: the JSON API and the Hub face."""
    settings = _settings(host=host, port=port, tls_cert=tls_cert, tls_key=tls_key)
    configure_logs(settings.log_level)
    box = build(settings)
    check_schema(box.works.engine)
    box.works.engine.dispose()
    # Each web process reads its settings from the environment, so choices made here go there.
    os.environ |= {"PORT": str(settings.port), "STAGERELEASE_HOST": settings.host}
    _uvicorn(settings)


def work() -> None:
    """Run the background worker."""
    settings = _settings()
    configure_logs(settings.log_level)
    box = build(settings)
    check_schema(box.works.engine)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    worker.run(box, stop)


def infer(
    listen: Annotated[
        str | None, typer.Option(help="unix:/path or host:port; else its socket in DATA_DIR.")
    ] = None,
) -> None:
    """Run the inference process: it computes for the web processes, and for nobody else."""
    settings = _settings(inference_listen=listen)
    configure_logs(settings.log_level)
    if settings.inference_dialect != "stagerelease":
        _wait_until_stopped("another server computes (STAGERELEASE_INFERENCE_DIALECT)")
        return
    begin_with_large_pages()
    secret = inference_secret(settings)
    engine = _engine(settings)
    serve_engine(engine, _listener(settings, secret), secret=secret, grace=settings.inference_grace)


def _engine(settings: Settings) -> Engine:
    """Return what computes; where that is not installed, what says so to whoever asks."""
    try:
        return build_engine(settings)
    except Unavailable as missing:
        structlog.get_logger(__name__).warning(missing.sentence)
        return AbsentEngine(missing)


def _listener(settings: Settings, secret: str | None) -> socket.socket:
    """Return the bound socket that the settings name."""
    where = settings.inference_listen or settings.inference_url
    if not where:
        return bind_socket(settings.inference_socket)
    if where.startswith("unix:"):
        return bind_socket(Path(where.removeprefix("unix:")))
    if secret is None:
        raise Invalid(
            "On TCP the inference process answers only those who know its secret, and has none.",
            reason="inference.secret",
            next_step="Set STAGERELEASE_INFERENCE_SECRET_FILE here and for the web processes.",
        )
    host, _, port = where.removeprefix("http://").rstrip("/").rpartition(":")
    if not host or not port.isdecimal():
        raise Invalid(
            f"{where!r} is no address to listen on.",
            reason="inference.listen",
            next_step="Write unix:/path or host:port.",
        )
    return bind_tcp(host.strip("[]"), int(port))


def _wait_until_stopped(why: str) -> None:
    """Say why there is nothing to do and do it, so that nobody starts this again and again."""
    structlog.get_logger(__name__).warning("inference is off", why=why)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()


def migrate() -> None:
    """Bring the database to the schema of this version."""
    with opened(migrate=True) as box:
        box.out.say(f"{box.works.engine.url.render_as_string()} is at this version's schema.")


def _open_and_prepare(settings: Settings, *, with_demo: bool, origin: str, out: Screen) -> None:
    embedded = not settings.database_url or settings.database_url.startswith("sqlite")
    box = build(settings, migrate=embedded)
    check_schema(box.works.engine)
    if with_demo:
        world.lay_down(box.works, box.blobs, box.settings, base_url=origin, say=out.say)
    box.works.engine.dispose()


def demo(
    base_url: Annotated[str | None, typer.Option(help="Origin written to demo.json.")] = None,
) -> None:
    """Lay down the demo world: four trained miniatures, one at each stage. Idempotent."""
    settings = _settings()
    origin = base_url or settings.public_url or f"http://{settings.host}:{settings.port}"
    with opened(migrate=True) as box:
        world.lay_down(box.works, box.blobs, box.settings, base_url=origin, say=box.out.say)
        box.out.say(world.invitation(settings.data_dir))


def _tls(settings: Settings, *, dev: bool) -> tuple[Settings, DevTls | None]:
    if dev and (settings.tls_cert or settings.tls_key):
        raise Invalid("Give either --tls-dev or a certificate, not both.", reason="tls")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise Invalid("--tls-cert and --tls-key go together.", reason="tls")
    for path in (settings.tls_cert, settings.tls_key):
        if path is not None and not path.is_file():
            raise Invalid(f"There is no file {path}.", reason="tls")
    if not dev:
        return settings, None
    made = make_dev_tls(settings.data_dir / "tls")
    return settings.model_copy(update={"tls_cert": made.cert, "tls_key": made.key}), made


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    tls_cert: Cert = None,
    tls_key: Key = None,
    tls_dev: TlsDev = False,
    with_demo: Annotated[
        bool, typer.Option("--demo", help="Lay down the demo world on first start.")
    ] = False,
) -> None:
    """Run web, worker and inference together, and keep them running."""
    settings = _settings(host=host, port=port, tls_cert=tls_cert, tls_key=tls_key)
    configure_logs(settings.log_level)
    out = Screen(CHOICES.form)
    settings, made = _tls(settings, dev=tls_dev)
    _check_port(settings.host, settings.port)
    scheme = "https" if settings.tls_cert else "http"
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    origin = settings.public_url or f"{scheme}://{shown}:{settings.port}"
    if scheme == "http" and not _is_loopback(settings.host):
        out.say(
            "Listening beyond this machine over plain HTTP: tokens from other machines are "
            "refused. Give --tls-cert and --tls-key, or put a TLS proxy in front."
        )
    _open_and_prepare(settings, with_demo=with_demo, origin=origin, out=out)
    environ = {
        "PORT": str(settings.port),
        "STAGERELEASE_HOST": settings.host,
        "DATA_DIR": str(settings.data_dir),
    }
    if settings.tls_cert and settings.tls_key:
        environ["STAGERELEASE_TLS_CERT"] = str(settings.tls_cert)
        environ["STAGERELEASE_TLS_KEY"] = str(settings.tls_key)
    supervisor = Supervisor(children_of(environ, []))
    threading.Thread(
        target=_announce, args=(settings, origin, made, out), name="announce", daemon=True
    ).start()
    supervisor.run()


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def _announce(settings: Settings, origin: str, made: DevTls | None, out: Screen) -> None:
    """Say that the service is ready once it answers, and what to do first."""
    deadline = time.monotonic() + 60
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    while time.monotonic() < deadline:
        with socket.socket(family) as probe:
            probe.settimeout(1)
            if probe.connect_ex((settings.host, settings.port)) == 0:
                break
        time.sleep(0.1)
    else:
        out.say("The web process has not answered for a minute; its messages are above.")
        return
    out.say(f"\nstagerelease serves on {origin}")
    if made is not None:
        out.say(trust_instructions(made, origin))
    if (settings.data_dir / world.FILE).exists():
        out.say(world.invitation(settings.data_dir))


def doctor() -> None:
    """Say what is in order here and what is not, and what to do about it."""
    settings = _settings()
    out = Screen(CHOICES.form)
    findings: list[tuple[bool, str]] = []
    python = sys.version_info[:2] >= (3, 11)
    findings.append((python, f"Python {sys.version.split()[0]} (3.11 or newer is needed)"))
    try:
        box = build(settings)
        check_schema(box.works.engine)
        findings.append((True, f"database {box.works.engine.url.render_as_string()}"))
        box.works.engine.dispose()
    except DomainError as error:
        findings.append((False, f"database: {error.sentence}"))
    free = shutil.disk_usage(settings.data_dir).free
    findings.append((free > 2**30, f"{free / 2**30:.1f} GiB free in {settings.data_dir}"))
    mode = settings.log_key_file.stat().st_mode & 0o777 if settings.log_key_file.exists() else 0
    findings.append((mode == 0o600, f"log key {settings.log_key_file} has mode {mode:o} (600)"))
    for good, sentence in findings:
        out.say(f"{'✓' if good else '✗'} {sentence}")
    if not all(good for good, _ in findings):
        raise typer.Exit(1)
