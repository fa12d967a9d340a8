"""What may be a file of a revision, what governs it, and how revisions are named. Pure.

Everything a file or path must satisfy is decided here, once, for import, upload and mirror alike.
No bytes are opened here: callers hand over names, sizes and the first bytes.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from posixpath import basename

from stagerelease.kernel.canonical import canonical_sha256
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Invalid

MAX_FILES = 10_000
MAX_PATH = 400
REGULAR_LIMIT = 10_000_000
"""Bytes up to which a file is kept as an ordinary git blob; larger ones are LFS."""
HEAD_BYTES = 65_536
"""How many first bytes ``check_content`` wants to see."""

WEIGHTS, TOKENIZER, MODEL_CARD, CODE = "weights", "tokenizer", "model_card", "code"
KINDS = frozenset({WEIGHTS, TOKENIZER, MODEL_CARD, CODE, "output_dataset", "detector"})
SKIPPED = frozenset({".git", ".cache", ".gitattributes"})
"""Top-level names that Hub tools leave behind; they are left out, and the caller is told."""

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}\Z")
_HEX = re.compile(r"[0-9a-f]{40}\Z")

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".cpkl")
_ARCHIVES = (
    *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".txz", ".7z", ".rar", ".zst", ".lz4"),
    *(".lzma", ".jar", ".whl", ".egg", ".nemo", ".mar", ".keras", ".cab", ".iso"),
)
_CONTAINERS = (
    *(".gguf", ".ggml", ".npz", ".npy", ".h5", ".hdf5", ".msgpack", ".ot", ".onnx", ".pb"),
    *(".tflite", ".llamafile", ".exe", ".dll", ".so", ".dylib", ".pyc"),
)

# First bytes that give a file away whatever it is called. Pickle protocols 2 to 5 begin with
# PROTO (0x80) and their number (CPython Lib/pickletools.py); protocols 0 and 1 have no such mark
# and are recognised by reading their opcodes, which runs nothing.
_MAGIC = (
    (b"PK\x03\x04", "archive", "a zip archive (the container PyTorch pickles travel in)"),
    (b"PK\x05\x06", "archive", "an empty zip archive"),
    (b"PK\x07\x08", "archive", "a split zip archive"),
    (b"\x1f\x8b", "archive", "gzip data"),
    (b"BZh", "archive", "bzip2 data"),
    (b"\xfd7zXZ\x00", "archive", "xz data"),
    (b"7z\xbc\xaf\x27\x1c", "archive", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "archive", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "archive", "Zstandard data"),
    (b"\x04\x22\x4d\x18", "archive", "LZ4 data"),
    (b"GGUF", "container", "a GGUF file"),
    (b"\x93NUMPY", "container", "a NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "container", "an HDF5 file"),
    (b"\x7fELF", "container", "an executable"),
    (b"MZ\x90", "container", "an executable"),
    (b"\xcf\xfa\xed\xfe", "container", "an executable"),
)
_TEXT = (".json", ".jsonl", ".txt", ".md", ".py", ".yaml", ".yml", ".jinja", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file of a revision about to be recorded; its bytes are in the store already."""

    path: str
    size: int
    sha256: str
    git_oid: str
    lfs: bool
    kind: str


def check_path(path: str) -> str:
    """Return ``path`` if it can name a file of a revision.

    Raises:
        Invalid: too long, hidden, absolute, climbing, or with any character but
            ``A-Z a-z 0-9 . _ -`` in a segment; the reason is ``path.<what>``.
    """
    if not path or len(path) > MAX_PATH:
        raise Invalid(
            f"A path has 1 to {MAX_PATH} characters, and this one has {len(path)}.",
            reason="path.length",
        )
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            raise Invalid(
                f"The path {path!r} is absolute, climbs, or has an empty part.",
                reason="path.traversal",
                next_step="Use a plain relative path such as 'data/samples.jsonl'.",
            )
        if segment.startswith(".") and _SEGMENT.match("_" + segment):
            raise Invalid(
                f"{path!r} is hidden, and hidden files are not published.",
                reason="path.hidden",
                next_step="Remove it, or rename it without the leading dot.",
            )
        if not _SEGMENT.match(segment):
            raise Invalid(
                f"The path {path!r} has a part that is not made of A-Z, a-z, 0-9, '.', '_', '-', "
                "or begins with '-'.",
                reason="path.characters",
                next_step="Rename it.",
            )
    return path


def check_paths(paths: Iterable[str]) -> None:
    """Return only if these paths can be the files of one revision on every file system.

    Raises:
        Invalid: none or more than ``MAX_FILES``, one of them malformed, the same twice, two that
            differ only in case, or one that is both a file and a directory.
    """
    taken: dict[str, tuple[str, bool]] = {}  # folded name -> (spelling, is a file)
    count = 0
    for path in paths:
        count += 1
        if count > MAX_FILES:
            raise Invalid(
                f"There are more than {MAX_FILES:,} files, the most one revision takes.",
                reason="files.too-many",
            )
        parts = check_path(path).split("/")
        for depth in range(1, len(parts) + 1):
            entry = ("/".join(parts[:depth]), depth == len(parts))
            held = taken.get(entry[0].casefold())
            if held is None:
                taken[entry[0].casefold()] = entry
            elif held != entry or entry[1]:
                raise _collision(entry[0], held[0])
    if count == 0:
        raise Invalid("There are no files to publish.", reason="files.none")


def _collision(name: str, other: str) -> Invalid:
    if name == other:
        sentence = f"{name!r} is there twice, or is both a file and a directory."
    else:
        sentence = f"{name!r} and {other!r} differ only in case and would overwrite each other."
    return Invalid(sentence, reason="path.collision", next_step="Rename one of them.")


def check_name(path: str) -> None:
    """Return only if the name of a file does not announce something that is never hosted.

    Raises:
        Invalid: reason ``file.pickle``, ``file.archive`` or ``file.container``.
    """
    name = basename(path).lower()
    if name.endswith(_PICKLES):
        raise Invalid(
            f"{path!r} is named like a pickle, which runs code when it is loaded.",
            reason="file.pickle",
            next_step="Convert it to safetensors and publish that.",
        )
    if name.endswith(_ARCHIVES):
        raise Invalid(
            f"{path!r} is named like an archive, whose content cannot be vouched for.",
            reason="file.archive",
            next_step="Publish the files inside it.",
        )
    if name.endswith(".safetensors") and not path.endswith(".safetensors"):
        raise Invalid(
            f"{path!r} must end in '.safetensors' in lower case: loaders look for exactly that.",
            reason="path.characters",
            next_step="Rename it.",
        )
    if name.endswith(_CONTAINERS):
        raise Invalid(
            f"{path!r} is named like a weight container or program that is not hosted here.",
            reason="file.container",
            next_step="Publish weights as safetensors.",
        )


def check_content(path: str, head: bytes) -> None:
    """Return only if the first ``HEAD_BYTES`` bytes are not those of something never hosted.

    Raises:
        Invalid: reason ``file.pickle``, ``file.archive``, ``file.container`` or ``file.binary``.
    """
    if is_safetensors(path):
        return  # its header is read and judged whole, which is stricter than any first byte
    if len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        raise Invalid(
            f"{path!r} is a pickle, which runs code when it is loaded, whatever its name.",
            reason="file.pickle",
            next_step="Convert it to safetensors and publish that.",
        )
    if _reads_as_pickle(head):
        raise Invalid(
            f"{path!r} reads as a pickle that calls code when it is loaded.", reason="file.pickle"
        )
    for magic, sort, what in _MAGIC:
        if head.startswith(magic):
            raise Invalid(
                f"{path!r} is {what}, whatever its name.",
                reason=f"file.{sort}",
                next_step="Publish plain files, and weights as safetensors.",
            )
    if head[257:262] == b"ustar":  # POSIX.1 pax and ustar headers
        raise Invalid(f"{path!r} is a tar archive, whatever its name.", reason="file.archive")
    if basename(path).lower().endswith(_TEXT) and b"\x00" in head:
        raise Invalid(f"{path!r} is named like text and holds NUL bytes.", reason="file.binary")


def _reads_as_pickle(head: bytes) -> bool:
    """Tell whether ``head`` is opcodes up to STOP that import something and call or build it."""
    seen: set[str] = set()
    try:
        for opcode, _, _ in pickletools.genops(head):
            seen.add(opcode.name)
    except (ValueError, IndexError, UnicodeDecodeError):
        return False
    imports = seen & {"GLOBAL", "STACK_GLOBAL"}
    return "INST" in seen or bool(imports and seen & {"REDUCE", "BUILD", "OBJ", "NEWOBJ"})


def is_safetensors(path: str) -> bool:
    """Tell whether a file holds tensors by its name."""
    return path.endswith(".safetensors")


def kind_of(path: str) -> str:
    """Return the artifact kind that governs a file of this name.

    What is not known to be harmless documentation or a tokenizer is released no earlier than its
    own track says: unknown names are ``code``.
    """
    name = basename(path)
    lower = name.lower()
    if lower.endswith((".safetensors", ".safetensors.index.json")):
        return WEIGHTS
    if lower in ("config.json", "generation_config.json"):
        return WEIGHTS
    if lower.startswith("tokenizer") and lower.endswith(".json"):
        return TOKENIZER
    if lower in ("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"):
        return TOKENIZER
    if name == "README.md" or name.startswith("LICENSE"):
        return MODEL_CARD
    return CODE


def whole_kind(kinds: Iterable[str]) -> str | None:
    """Return the kind of a revision that is wholly an output dataset or a detector, else None."""
    different = set(kinds)
    if len(different) == 1 and different <= {"output_dataset", "detector"}:
        return different.pop()
    return None


def is_lfs(path: str, size: int) -> bool:
    """Tell whether a file is kept as a Git LFS object: tensors always, anything else when large."""
    return is_safetensors(path) or size > REGULAR_LIMIT


def check_repo_id(repo_id: str) -> str:
    """Return ``repo_id`` if it is ``namespace/name`` as Hub clients accept it.

    Raises:
        Invalid: it is not.
    """
    bad = not _REPO.match(repo_id) or "--" in repo_id or ".." in repo_id
    if bad or repo_id.endswith((".git", ".", "-")) or "./" in repo_id or "-/" in repo_id:
        raise Invalid(
            f"{repo_id!r} is not a repository id: write namespace/name with A-Z, a-z, 0-9, '.', "
            "'_', '-' and no '--' or '..'.",
            reason="repo.malformed",
        )
    return repo_id


def check_ref(name: str) -> str:
    """Return ``name`` if it can name a branch or tag and never be mistaken for a commit.

    Raises:
        Invalid: it cannot.
    """
    bad = not _REF.match(name) or ".." in name or "//" in name or "/." in name
    if bad or name.endswith(("/", ".", ".lock")) or _HEX.match(name) or name.startswith("refs/"):
        raise Invalid(
            f"{name!r} cannot name a branch or tag: use A-Z, a-z, 0-9, '.', '_', '-', '/', at most "
            "200 characters, not 40 hex digits.",
            reason="ref.malformed",
        )
    return name


def check_message(message: str) -> str:
    """Return a commit message with plain line ends.

    Raises:
        Invalid: empty, longer than 8,000 characters, or with control characters.
    """
    text = message.replace("\r\n", "\n").strip()
    if not text or len(text) > 8000 or any(ord(c) < 32 and c not in "\n\t" for c in text):
        raise Invalid(
            "The message must be 1 to 8,000 printable characters.", reason="message.malformed"
        )
    return text


def check_kind(kind: str) -> str:
    """Return ``kind`` if it is an artifact kind.

    Raises:
        Invalid: it is not.
    """
    if kind not in KINDS:
        raise Invalid(
            f"{kind!r} is not an artifact kind: {', '.join(sorted(KINDS))}.", reason="kind"
        )
    return kind


def manifest_sha256(files: Sequence[NewFile]) -> str:
    """Return the digest of a revision's manifest: sorted ``{path, size, sha256}`` as RFC 8785."""
    lines = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in files]
    return canonical_sha256(sorted(lines, key=lambda line: str(line["path"])))


def revision_id(
    *, variant_id: str, parent_id: str | None, message: str, created_at: datetime, manifest: str
) -> str:
    """Return the 40-hex id of a revision: it commits to files, parent, message and time."""
    named = {
        "variant": variant_id,
        "parent": parent_id,
        "message": message,
        "created_at": iso(created_at),
        "manifest": manifest,
    }
    return canonical_sha256(named)[:40]
