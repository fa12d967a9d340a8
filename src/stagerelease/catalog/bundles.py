"""Reads Sigstore bundles that OpenSSF Model Signing makes with a key, and checks them. No database.

A bundle (v0.3) holds a DSSE envelope over an in-toto statement whose predicate lists one SHA-256
per file. What the signature covers is the DSSE pre-authentication encoding of the payload's bytes;
nothing of the payload is believed before that has been verified.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stagerelease.kernel.digests import is_sha256, sha256_hex
from stagerelease.kernel.errors import Invalid

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
LARGEST = 900_000
"""Bytes of a bundle: room for more than 3,000 files, and below every limit on a JSON body."""

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
"""The hash that goes with a curve, as model_signing pairs them."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An elliptic-curve key: its PEM as re-encoded here, and the digest by which bundles hint."""

    pem: str
    pem_sha256: str
    curve: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle taken apart; ``hint`` names the key it says it was signed with, if any."""

    payload: bytes
    payload_type: str
    signature: bytes
    hint: str


def read_key(pem: str) -> PublicKey:
    """Return a public key from its PEM text.

    Raises:
        Invalid: it is a private key, or no elliptic-curve key on P-256, P-384 or P-521.
    """
    if "PRIVATE KEY" in pem:
        raise Invalid(
            "This is a private key, and it has now been sent to a server. Only public keys belong "
            "here.",
            reason="key.private",
            next_step="Make a new key pair, and register the output of "
            "`openssl ec -in key.pem -pubout`.",
        )
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("This is no public key in PEM form.", reason="key.malformed") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise Invalid(
            "Model signatures need an elliptic-curve key on P-256, P-384 or P-521; Ed25519 and RSA "
            "keys do not work with model_signing.",
            reason="key.kind",
            next_step="openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
        )
    encoded = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicKey(encoded.decode(), sha256_hex(encoded), f"P-{key.curve.key_size}")


def read_bundle(text: bytes) -> Bundle:
    """Take a bundle apart; nothing in it is verified yet.

    Raises:
        Invalid: it is not a v0.3 bundle with one DSSE signature made with a key.
    """
    if len(text) > LARGEST:
        raise _bad(f"it has {len(text):,} bytes, and at most {LARGEST:,} are read")
    document = _json(text, "it is not JSON")
    if document.get("mediaType") != MEDIA_TYPE:
        raise _bad(f"its mediaType is not {MEDIA_TYPE}")
    envelope = document.get("dsseEnvelope")
    if not isinstance(envelope, dict):
        raise _bad("it holds no DSSE envelope")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise _bad("its envelope does not hold exactly one signature")
    material = document.get("verificationMaterial")
    named = material.get("publicKey") if isinstance(material, dict) else None
    if not isinstance(named, dict):
        raise _bad("it was not signed with a key (certificates are not accepted here)")
    first = signatures[0]
    return Bundle(
        payload=_base64(envelope.get("payload")),
        payload_type=str(envelope.get("payloadType", "")),
        signature=_base64(first.get("sig") if isinstance(first, dict) else None),
        hint=str(named.get("hint") or ""),
    )


def verify(bundle: Bundle, pem: str) -> bool:
    """Tell whether the bundle's signature is this key's over exactly its payload (ECDSA, DSSE)."""
    key = serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(
            bundle.signature,
            encode(bundle.payload_type, bundle.payload),
            ec.ECDSA(_HASHES[key.curve.name]()),
        )
    except InvalidSignature:
        return False
    return True


def encode(payload_type: str, payload: bytes) -> bytes:
    """Return the DSSE v1 pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def files_of(bundle: Bundle) -> dict[str, str]:
    """Return what a verified bundle states: the SHA-256 of each file, by path.

    Raises:
        Invalid: the statement is of another kind, lists a file twice, hashes in another way, or
            does not agree with its own root digest.
    """
    if bundle.payload_type != PAYLOAD_TYPE:
        raise _bad(f"its payload is not {PAYLOAD_TYPE}")
    statement = _json(bundle.payload, "its payload is not JSON")
    if statement.get("_type") != STATEMENT or statement.get("predicateType") != PREDICATE:
        raise _bad(f"its statement is not of type {PREDICATE}")
    predicate = statement.get("predicate")
    resources = predicate.get("resources") if isinstance(predicate, dict) else None
    if not isinstance(resources, list):
        raise _bad("its statement lists no files")
    found: dict[str, str] = {}
    for item in resources:
        name, digest = _file(item)
        if name in found:
            raise _bad(f"it lists {name} twice")
        found[name] = digest
    root = sha256_hex(b"".join(bytes.fromhex(digest) for digest in found.values()))
    if statement.get("subject") is None or root != _root_of(statement["subject"]):
        raise _bad("its root digest is not that of the files it lists")
    return found


def _root_of(subjects: Any) -> str | None:
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        return None
    digest = subjects[0].get("digest")
    return digest.get("sha256") if isinstance(digest, dict) else None


def _file(item: Any) -> tuple[str, str]:
    if not isinstance(item, dict):
        raise _bad("an entry of its list of files is no object")
    name, digest = item.get("name"), item.get("digest")
    if item.get("algorithm") != "sha256" or not isinstance(digest, str) or not is_sha256(digest):
        raise _bad("a file in it has no SHA-256; sign whole files, not shards")
    if not isinstance(name, str):
        raise _bad("a file in it has no name")
    return name, digest


def difference(stated: Mapping[str, str], held: Mapping[str, str]) -> str | None:
    """Return in one sentence how the files stated differ from the files held; None if they agree.

    ``.gitattributes``, ``.gitignore``, ``.git`` and ``.github`` are never files of a revision here
    and model_signing leaves them out on both sides, so nothing is excepted: README.md included,
    the two sets must be equal.
    """
    for words, names in (
        ("does not cover", sorted(held.keys() - stated.keys())),
        ("covers what the revision does not hold:", sorted(stated.keys() - held.keys())),
        ("has another digest for", sorted(n for n in stated if held.get(n, "") != stated[n])),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return f"The signature {words} {', '.join(names[:3])}{more}."
    return None


def _json(text: bytes, complaint: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise _bad("a name in it appears twice")
        return document

    try:
        document = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise _bad(complaint) from error
    if not isinstance(document, dict):
        raise _bad(complaint)
    return document


def _base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise _bad("a part of its envelope is missing")
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise _bad("a part of its envelope is not base64") from error


def _bad(what: str) -> Invalid:
    return Invalid(
        f"This is no signature that can be kept: {what}.",
        reason="bundle.malformed",
        next_step="Make it with: model_signing sign key DIR --private_key key.pem --signature "
        "DIR.sig.json",
    )
