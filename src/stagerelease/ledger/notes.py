"""C2SP signed notes, tlog checkpoints and tlog proofs: the forms that foreign verifiers read.

Specifications: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-proof. Ed25519 only
(algorithm byte 0x01). Parsing is strict: what is not exactly of the form is refused, and refused
only ever with ``NoteRefused``. Pure: no files, no clock, no database.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_DASH = "\u2014"  # signature lines begin with an em dash (signed-note)
_DECIMAL = re.compile(r"0\Z|[1-9][0-9]{0,18}\Z")  # no leading zeroes (tlog-checkpoint)
_LARGEST = 2**63 - 1  # what Go, Java and SQL can count
_LONGEST = 1_000_000  # characters; a note of 100 post-quantum signatures fits
_MOST_SIGNATURES = 100  # as Go's sumdb/note; the specification wants at least 16
_HIGHEST_TREE = 63


class NoteRefused(ValueError):
    """The text is not of the right form, or is not signed by the given key."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: whose, under which key id (4 bytes), and the signature itself."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note. Nothing in ``text`` may be believed before a signature was verified."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: whose log, how many leaves, which root (tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def _b64(text: str, *, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteRefused(f"{what} is not base64") from error
    if base64.b64encode(data).decode() != text:  # one spelling only
        raise NoteRefused(f"{what} is not canonical base64")
    return data


def _number(text: str, *, what: str) -> int:
    if not _DECIMAL.match(text) or int(text) > _LARGEST:
        raise NoteRefused(f"{what} is not a decimal number below 2^63")
    return int(text)


def _require_plain(text: str, *, what: str) -> None:
    """Refuse what signed-note refuses: control characters and text that is not valid UTF-8."""
    if len(text) > _LONGEST:
        raise NoteRefused(f"{what} is too long")
    if any(c < " " and c != "\n" for c in text):
        raise NoteRefused(f"{what} has a control character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise NoteRefused(f"{what} is not valid UTF-8") from error


def _require_name(name: str) -> None:
    """Refuse a key name that is empty or has a space or a plus (signed-note)."""
    _require_plain(name, what="a key name")
    if not name or "+" in name or any(c.isspace() for c in name):
        raise NoteRefused("a key name is not empty and has no space and no '+'")


# --- keys ---------------------------------------------------------------------------------------


def _key_id(name: str, public: bytes) -> bytes:
    """Return the 4-byte key id: SHA-256(name ‖ "\\n" ‖ algorithm ‖ key)[:4] (signed-note)."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def _encoded(name: str, public: bytes) -> str:
    data = base64.b64encode(ED25519 + public).decode()
    return f"{name}+{_key_id(name, public).hex()}+{data}"


def _key_bytes(name: str, data: str) -> bytes:
    _require_name(name)
    raw = _b64(data, what="the key")
    if raw[:1] != ED25519 or len(raw) != 33:
        raise NoteRefused("not an Ed25519 note key")
    return raw[1:]


def _private(skey: str) -> tuple[str, Ed25519PrivateKey]:
    parts = skey.split("+", 4)
    if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
        raise NoteRefused("not a private note key")
    _, _, name, key_id, data = parts
    private = Ed25519PrivateKey.from_private_bytes(_key_bytes(name, data))
    if _key_id(name, private.public_key().public_bytes_raw()).hex() != key_id:
        raise NoteRefused("the key does not match its id")
    return name, private


def _public(vkey: str) -> tuple[str, bytes, Ed25519PublicKey]:
    name, _, rest = vkey.partition("+")
    key_id, _, data = rest.partition("+")
    raw = _key_bytes(name, data)
    if _key_id(name, raw).hex() != key_id:
        raise NoteRefused("the key does not match its id")
    try:
        return name, bytes.fromhex(key_id), Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise NoteRefused("not an Ed25519 public key") from error


def generate_key(name: str) -> tuple[str, str]:
    """Return a new ``(skey, vkey)`` for ``name``, in Go's ``sumdb/note`` encodings.

    Raises:
        NoteRefused: ``name`` cannot be a key name.
    """
    _require_name(name)
    private = Ed25519PrivateKey.generate()
    key_id = _key_id(name, private.public_key().public_bytes_raw()).hex()
    seed = base64.b64encode(ED25519 + private.private_bytes_raw()).decode()
    skey = f"PRIVATE+KEY+{name}+{key_id}+{seed}"
    return skey, vkey_of(skey)


def vkey_of(skey: str) -> str:
    """Return the public verifier key ``name+id+base64`` of a private one.

    Raises:
        NoteRefused: ``skey`` is not a private note key.
    """
    name, private = _private(skey)
    return _encoded(name, private.public_key().public_bytes_raw())


def key_name(vkey: str) -> str:
    """Return the name that a verifier key belongs to.

    Raises:
        NoteRefused: ``vkey`` is not an Ed25519 verifier key.
    """
    return _public(vkey)[0]


# --- notes --------------------------------------------------------------------------------------


def sign(text: str, skey: str) -> str:
    """Return the note: ``text`` (which ends in a newline), a blank line, one signature line.

    Raises:
        NoteRefused: the text cannot be a note's, or ``skey`` is not a private note key.
    """
    _require_plain(text, what="a note")
    if not text.endswith("\n"):
        raise NoteRefused("a note's text ends in a newline")
    name, private = _private(skey)
    public = private.public_key().public_bytes_raw()
    blob = _key_id(name, public) + private.sign(text.encode())
    return f"{text}\n{_DASH} {name} {base64.b64encode(blob).decode()}\n"


def parse_note(note: str) -> Note:
    """Return the parts of ``note`` without verifying any signature.

    Raises:
        NoteRefused: the form is wrong anywhere, in lines of other signers too.
    """
    _require_plain(note, what="a note")
    text, blank, block = note.rpartition("\n\n")  # the last empty line separates (signed-note)
    if not blank or not block.endswith("\n"):
        raise NoteRefused("a note has a text, a blank line and signature lines")
    lines = block[:-1].split("\n")
    if len(lines) > _MOST_SIGNATURES:
        raise NoteRefused("a note has too many signatures")
    return Note(text + "\n", tuple(_signature(line) for line in lines))


def _signature(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, data = rest.partition(" ")
    if dash != _DASH:
        raise NoteRefused("a signature line begins with an em dash and a space")
    _require_name(name)
    blob = _b64(data, what="a signature")
    if len(blob) < 5:
        raise NoteRefused("a signature line has a key id and a signature")
    return Signature(name, blob[:4], blob[4:])


def verify(note: str, vkey: str) -> str:
    """Return the text of ``note`` once the key's signature on it holds.

    Signatures of other keys are passed over, as signed-note demands; every one of this key counts.

    Raises:
        NoteRefused: the form is wrong, the key has not signed, or its signature does not hold.
    """
    parsed = parse_note(note)
    name, key_id, public = _public(vkey)
    ours = [s for s in parsed.signatures if s.name == name and s.key_id == key_id]
    if not ours:
        raise NoteRefused(f"the note is not signed by {name}")
    for found in ours:
        try:
            public.verify(found.signature, parsed.text.encode())
        except InvalidSignature as error:
            raise NoteRefused("the signature does not hold") from error
    return parsed.text


# --- checkpoints --------------------------------------------------------------------------------


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint that ``text`` (a verified note's text) states.

    Raises:
        NoteRefused: the form is wrong.
    """
    _require_plain(text, what="a checkpoint")
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() != "" or not all(lines):
        raise NoteRefused("a checkpoint is an origin, a size and a root on non-empty lines")
    root = _b64(lines[2], what="the root")
    if len(root) != 32:
        raise NoteRefused("a checkpoint's root has 32 bytes")
    return Checkpoint(lines[0], _number(lines[1], what="a checkpoint's size"), root)


def open_checkpoint(note: str, vkey: str) -> Checkpoint:
    """Return the checkpoint that the log itself signed: its key is named after its origin.

    Raises:
        NoteRefused: the note does not verify, states no checkpoint, or states another log's.
    """
    checkpoint = parse_checkpoint(verify(note, vkey))
    if checkpoint.origin != key_name(vkey):
        raise NoteRefused(f"the checkpoint is of {checkpoint.origin}, not of {key_name(vkey)}")
    return checkpoint


# --- proofs -------------------------------------------------------------------------------------


def write_proof(
    idx: int, proof: Sequence[bytes], checkpoint_note: str, *, extra: bytes | None = None
) -> str:
    """Return an inclusion proof in tlog-proof form: index, hashes, then the checkpoint.

    ``extra`` is data of the application's own; the format does not authenticate it.
    """
    opaque = "" if extra is None else f"extra {base64.b64encode(extra).decode()}\n"
    hashes = "".join(base64.b64encode(item).decode() + "\n" for item in proof)
    return f"{PROOF_HEADER}\n{opaque}index {idx}\n{hashes}\n{checkpoint_note}"


def parse_proof(text: str) -> tuple[int, list[bytes], str]:
    """Return ``(index, hashes, checkpoint note)`` of a tlog-proof.

    An ``extra`` line is checked for its form and dropped: nothing authenticates it.

    Raises:
        NoteRefused: the form is wrong.
    """
    _require_plain(text, what="a proof")
    head, blank, note = text.partition("\n\n")
    lines = head.split("\n")
    if not blank or lines.pop(0) != PROOF_HEADER:
        raise NoteRefused("not a tlog-proof")
    if lines and lines[0].startswith("extra "):
        _b64(lines.pop(0).removeprefix("extra "), what="the extra data")
    if not lines or not lines[0].startswith("index "):
        raise NoteRefused("a proof names its index")
    idx = _number(lines.pop(0).removeprefix("index "), what="a proof's index")
    hashes = [_b64(line, what="a hash") for line in lines]
    if any(len(item) != 32 for item in hashes) or len(hashes) > _HIGHEST_TREE:
        raise NoteRefused("a proof is made of at most 63 hashes of 32 bytes")
    return idx, hashes, note
