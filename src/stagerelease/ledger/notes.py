"""C2SP signed notes, tlog checkpoints and tlog proofs: the forms that foreign verifiers read.

Ed25519 only (algorithm byte 0x01). Parsing is strict: what is not exactly of the form is refused.
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
_NAME = re.compile(r"[^\s+]+\Z")
_DASH = "\u2014"  # signature lines begin with an em dash (signed-note)
_SIZE = re.compile(r"0\Z|[1-9][0-9]{0,18}\Z")
_LONGEST = 1_000_000


class NoteRefused(ValueError):
    """The text is not a note of the right form, or is not signed by the given key."""


def _b64(text: str, *, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteRefused(f"{what} is not base64") from error
    if base64.b64encode(data).decode() != text:  # one spelling only
        raise NoteRefused(f"{what} is not canonical base64")
    return data


def _key_id(name: str, public: bytes) -> bytes:
    """Return the 4-byte key id: SHA-256(name ‖ "\\n" ‖ algorithm ‖ key)[:4] (signed-note)."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def generate_key(name: str) -> tuple[str, str]:
    """Return a new ``(skey, vkey)`` for ``name``, in Go's ``sumdb/note`` encodings."""
    if not _NAME.match(name):
        raise NoteRefused("a key name has no spaces and no '+'")
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    key_id = _key_id(name, public).hex()
    seed = base64.b64encode(ED25519 + private.private_bytes_raw()).decode()
    skey = f"PRIVATE+KEY+{name}+{key_id}+{seed}"
    return skey, vkey_of(skey)


def _private(skey: str) -> tuple[str, Ed25519PrivateKey]:
    parts = skey.split("+", 4)
    if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
        raise NoteRefused("not a private note key")
    _, _, name, key_id, data = parts
    raw = _b64(data, what="the key")
    if raw[:1] != ED25519 or len(raw) != 33:
        raise NoteRefused("not an Ed25519 note key")
    private = Ed25519PrivateKey.from_private_bytes(raw[1:])
    if _key_id(name, private.public_key().public_bytes_raw()).hex() != key_id:
        raise NoteRefused("the key does not match its id")
    return name, private


def vkey_of(skey: str) -> str:
    """Return the public verifier key ``name+id+base64`` of a private one."""
    name, private = _private(skey)
    public = private.public_key().public_bytes_raw()
    return f"{name}+{_key_id(name, public).hex()}+{base64.b64encode(ED25519 + public).decode()}"


def _public(vkey: str) -> tuple[str, bytes, Ed25519PublicKey]:
    name, _, rest = vkey.partition("+")
    key_id, _, data = rest.partition("+")
    raw = _b64(data, what="the key")
    if not _NAME.match(name) or raw[:1] != ED25519 or len(raw) != 33:
        raise NoteRefused("not an Ed25519 verifier key")
    if _key_id(name, raw[1:]).hex() != key_id:
        raise NoteRefused("the key does not match its id")
    return name, bytes.fromhex(key_id), Ed25519PublicKey.from_public_bytes(raw[1:])


def sign(text: str, skey: str) -> str:
    """Return the note: ``text`` (which ends in a newline), a blank line, one signature line."""
    if not text.endswith("\n") or any(ord(c) < 32 and c != "\n" for c in text):
        raise NoteRefused("a note's text ends in a newline and has no other control character")
    name, private = _private(skey)
    public = private.public_key().public_bytes_raw()
    blob = _key_id(name, public) + private.sign(text.encode())
    return f"{text}\n{_DASH} {name} {base64.b64encode(blob).decode()}\n"


def verify(note: str, vkey: str) -> str:
    """Return the text of ``note`` once the key's signature on it holds.

    Raises:
        NoteRefused: the form is wrong, the key has not signed, or its signature does not hold.
    """
    if len(note) > _LONGEST or any(ord(c) < 32 and c != "\n" for c in note):
        raise NoteRefused("not a note")
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise NoteRefused("a note has a text, a blank line and signature lines")
    text += "\n"
    name, key_id, public = _public(vkey)
    for line in signatures[:-1].split("\n"):
        dash, _, rest = line.partition(" ")
        signer, _, data = rest.partition(" ")
        if dash != _DASH or not _NAME.match(signer):
            raise NoteRefused("a signature line is malformed")
        blob = _b64(data, what="a signature")
        if len(blob) < 5:
            raise NoteRefused("a signature line is malformed")
        if signer == name and blob[:4] == key_id:
            try:
                public.verify(blob[4:], text.encode())
            except InvalidSignature as error:
                raise NoteRefused("the signature does not hold") from error
            return text
    raise NoteRefused(f"the note is not signed by {name}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: whose log, how many leaves, which root (tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint that ``text`` (a verified note's text) states.

    Raises:
        NoteRefused: the form is wrong.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "" or not lines[0]:
        raise NoteRefused("a checkpoint has an origin, a size and a root")
    if not _SIZE.match(lines[1]):
        raise NoteRefused("a checkpoint's size is a decimal number")
    root = _b64(lines[2], what="the root")
    if len(root) != 32:
        raise NoteRefused("a checkpoint's root has 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def write_proof(idx: int, proof: Sequence[bytes], checkpoint_note: str) -> str:
    """Return an inclusion proof in C2SP tlog-proof form: index, hashes, then the checkpoint."""
    hashes = "".join(base64.b64encode(item).decode() + "\n" for item in proof)
    return f"c2sp.org/tlog-proof@v1\nindex {idx}\n{hashes}\n{checkpoint_note}"


def parse_proof(text: str) -> tuple[int, list[bytes], str]:
    """Return ``(index, hashes, checkpoint note)`` of a tlog-proof.

    Raises:
        NoteRefused: the form is wrong.
    """
    if len(text) > _LONGEST:
        raise NoteRefused("not a proof")
    head, blank, note = text.partition("\n\n")
    lines = head.split("\n")
    if not blank or len(lines) < 2 or lines[0] != "c2sp.org/tlog-proof@v1":
        raise NoteRefused("not a tlog-proof")
    word, _, number = lines[1].partition(" ")
    if word != "index" or not _SIZE.match(number):
        raise NoteRefused("a proof names its index")
    hashes = [_b64(line, what="a hash") for line in lines[2:]]
    if any(len(item) != 32 for item in hashes) or len(hashes) > 63:
        raise NoteRefused("a proof is made of at most 63 hashes of 32 bytes")
    return int(number), hashes, note
