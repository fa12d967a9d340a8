"""A certificate authority of one's own, for trying HTTPS on one's own machine.

The authority's key never leaves the data directory. It may only sign for the names below (name
constraints, RFC 5280 §4.2.1.10), so trusting it for an afternoon cannot be turned against the web.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAMES = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class DevTls:
    """Files of the development authority and the server's certificate."""

    ca: Path
    cert: Path
    key: Path


def _write(path: Path, data: bytes, mode: int) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, path)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _still_good(tls: DevTls, now: datetime) -> bool:
    if not (tls.ca.exists() and tls.cert.exists() and tls.key.exists()):
        return False
    cert = x509.load_pem_x509_certificate(tls.cert.read_bytes())
    return cert.not_valid_after_utc > now + timedelta(days=1)


def make_dev_tls(directory: Path) -> DevTls:
    """Return a CA and a certificate for this machine's loopback names, made once and kept."""
    now = datetime.now(UTC)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    tls = DevTls(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    if _still_good(tls, now):
        return tls
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "stagerelease development CA (this machine)")]
    )
    permitted: list[x509.GeneralName] = [x509.DNSName(name) for name in NAMES]
    permitted += [x509.IPAddress(ipaddress.ip_network(a)) for a in ADDRESSES]
    ca = (
        x509.CertificateBuilder()
        .subject_name(ca_name)
        .issuer_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=397))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    _sign_leaf(tls, ca, ca_key, now)
    _write(tls.ca, ca.public_bytes(serialization.Encoding.PEM), 0o644)
    return tls


def _sign_leaf(
    tls: DevTls, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, now: datetime
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in NAMES]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in ADDRESSES]
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
            critical=False,
        )
        .sign(ca_key, hashes.SHA256())
    )
    _write(tls.key, _pem(key), 0o600)
    _write(tls.cert, cert.public_bytes(serialization.Encoding.PEM), 0o644)


def trust_instructions(tls: DevTls, origin: str) -> str:
    """Return how each client is told to trust this authority, and nothing else but this."""
    ca = tls.ca.resolve()
    return "\n".join(
        [
            f"This machine's development CA is {ca}. Clients trust it like this:",
            f"  hf, transformers, httpx:  export SSL_CERT_FILE={ca}",
            f"  requests:                 export REQUESTS_CA_BUNDLE={ca}",
            f"  curl:                     curl --cacert {ca} {origin}/readyz",
            f"  wget:                     wget --ca-certificate={ca} …",
            f"  aria2c:                   aria2c --ca-certificate={ca} …",
            f"  git:                      git -c http.sslCAInfo={ca} …",
            "It signs for localhost, 127.0.0.1 and ::1 only. Use a real certificate elsewhere.",
        ]
    )
