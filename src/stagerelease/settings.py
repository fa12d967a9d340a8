"""Every setting: read from the environment once, frozen, passed down (never a global)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stagerelease.kernel.errors import Invalid

PREFIX = "STAGERELEASE_"


class Settings(BaseModel):
    """What an operator can decide; each field is ``STAGERELEASE_<NAME>`` in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path("data")
    """Directory of the embedded database, blobs and keys."""
    database_url: str = ""
    """``postgresql+psycopg://…``; empty means SQLite inside ``data_dir``."""
    database_password_file: Path | None = None
    """File that holds the database password, so that the URL can stay free of secrets."""
    public_url: str = ""
    """Origin that clients use (scheme, host, port); empty means what each request says."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    web_processes: int = Field(default=1, ge=1, le=64)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: str = ""
    """Comma-separated addresses whose X-Forwarded-* headers are believed; empty means none."""
    delivery: Literal["direct", "accel"] = "direct"
    """``accel`` answers X-Accel-Redirect and lets nginx send the bytes."""
    accel_prefix: str = "/_weights/"
    edge_log: Path | None = None
    """nginx's delivery log (JSON lines) that the worker reads to learn what was really sent."""
    edge_secret_file: Path | None = None
    """File whose content the edge shows to ask which downloads to cut; none means nobody may."""
    threads: int = Field(default=16, ge=1, le=200)
    """Request threads of one web process; also the size of its database pool."""
    max_json_bytes: int = Field(default=1_048_576, ge=1024)
    max_attachment_bytes: int = Field(default=268_435_456, ge=1024)
    """Largest file that can be attached to evidence (256 MiB)."""
    smtp_url: str = ""
    """``smtp://host:25``, ``smtp://user@host:587?starttls`` or ``smtps://user@host:465``; empty:
    notices are kept to be read here, and nothing is mailed."""
    smtp_password_file: Path | None = None
    """File that holds the mail server's password."""
    mail_from: str = "stagerelease <no-reply@localhost>"
    """Who mails are from."""
    webhooks_to_loopback: bool = False
    """Allow webhooks to this machine over plain HTTP: for tests and development only."""
    design_page: bool = False
    """Show /design, a page of every part that pages are made of: for those who build pages."""
    inference_url: str = ""
    """Where web processes find the inference process: ``unix:/path``, ``http://host:port``; empty
    means its socket inside ``data_dir``."""
    inference_listen: str = ""
    """Where the inference process listens: ``unix:/path`` or ``host:port`` (then a secret is
    needed); empty means where ``inference_url`` says."""
    inference_secret_file: Path | None = None
    """File that holds the secret web and inference share over TCP, or a foreign server's key."""
    inference_dialect: Literal["stagerelease", "vllm", "openai"] = "stagerelease"
    """What is spoken there: ``stagerelease`` to our own process, else to a server of others."""
    inference_models: str = ""
    """``repo_id=name,…``: the names a foreign server knows our repositories by."""
    inference_dtype: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Precision of the products; ``auto`` is bf16 where the processor has it, else fp32."""
    inference_threads: int = Field(default=0, ge=0, le=256)
    """Threads that compute; 0 is every core but one, which the web process needs."""
    inference_memory: int = Field(default=0, ge=0)
    """Bytes for weights, keys and values of all models; 0 is six tenths of the machine's memory."""
    inference_store_memory: int = Field(default=2**31, ge=2**20)
    """Bytes of it that one model's keys and values may take (2 GiB)."""
    inference_batch: int = Field(default=32, ge=1, le=512)
    """Sequences of one model that are computed together."""
    inference_patience: float = Field(default=5.0, ge=0, le=600)
    """Seconds a first request waits for its model to load before it is told to come again."""
    inference_grace: float = Field(default=20.0, ge=0, le=600)
    """Seconds that running requests get to finish when the inference process is told to stop."""
    inference_longest: int = Field(default=600, ge=1, le=86_400)
    """Seconds after which a request is ended whatever it has done."""
    inference_stall: float = Field(default=20.0, ge=0.1, le=600)
    """Seconds a client may take nothing of its stream before the sequences are stopped."""
    inference_requests_per_minute: int = Field(default=120, ge=1)
    inference_tokens_per_minute: int = Field(default=40_000, ge=1)
    inference_tokens_per_day: int = Field(default=2_000_000, ge=1)
    inference_sequences: int = Field(default=16, ge=1)
    """Sequences (prompts × n) of one grant, or of one person without, that run at once."""
    inference_max_tokens: int = Field(default=2048, ge=1)
    """Most new tokens per sequence of one request."""
    inference_prompt_days: int = Field(default=30, ge=1, le=3650)
    """Days that prompts stay where a plan says that they are kept."""
    log_origin: str = "stagerelease.local/log"
    """Name of the transparency log in its signed checkpoints (C2SP tlog-checkpoint origin)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def resolved_database_url(self) -> str:
        """Return the URL to connect to, the embedded database when none is given."""
        if not self.database_url:
            return f"sqlite:///{(self.data_dir / 'stagerelease.sqlite3').resolve()}"
        return self.database_url

    @property
    def origin(self) -> str:
        """Return the origin that links in mails name."""
        if self.public_url:
            return self.public_url.rstrip("/")
        scheme = "https" if self.tls_cert is not None else "http"
        return f"{scheme}://{self.host}:{self.port}"

    @property
    def blobs_dir(self) -> Path:
        """Return where the local blob store keeps its files."""
        return self.data_dir / "blobs"

    @property
    def inference_socket(self) -> Path:
        """Return where the inference process listens when nothing else is said."""
        return (self.data_dir / "run" / "infer.sock").resolve()

    @property
    def log_key_file(self) -> Path:
        """Return where the ledger's private signing key is kept (mode 600)."""
        return self.data_dir / "keys" / "log.key"

    @property
    def link_key_file(self) -> Path:
        """Return where the key that signs mailed links is kept (mode 600)."""
        return self.data_dir / "keys" / "links.key"


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings that ``environ`` describes.

    ``PORT`` and ``DATA_DIR`` are honoured as short names of their prefixed forms.

    Raises:
        Invalid: an unknown variable with the prefix, or a value of the wrong form; says which.
    """
    values: dict[str, str] = {}
    for short in ("PORT", "DATA_DIR"):
        if environ.get(short):
            values[short.lower()] = environ[short]
    for name, value in environ.items():
        if not name.startswith(PREFIX):
            continue
        field = name.removeprefix(PREFIX).lower()
        if field == "token":  # the CLI's own credential, not a setting of the service
            continue
        if field not in Settings.model_fields:
            raise Invalid(
                f"{name} is set, and there is no such setting.",
                reason="settings.unknown",
                next_step="Unset it, or see docs/operators.md for the names.",
            )
        values[field] = value
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise Invalid(
            f"{name} is not usable: {first['msg']}.", reason="settings.invalid"
        ) from error
