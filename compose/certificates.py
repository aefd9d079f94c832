"""TLS for one machine: a small certificate authority of our own, and a server certificate signed by it.

A person who imports the one authority (`tls/ca.crt`) has no warning for any later certificate.
"""

import ipaddress
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from compose.layout import write_private

AUTHORITY_VALID_FOR = timedelta(days=3650)
# Browsers refuse server certificates valid for more than 398 days, also from authorities of one's own on
# some systems (CA/Browser Forum baseline, 6.3.2).
SERVER_VALID_FOR = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
# A machine whose clock is a little behind must still accept what was made just now.
CLOCK_SLACK = timedelta(hours=1)

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files."""

    authority: Path
    certificate: Path
    key: Path


def names_of_this_machine(public_host: str | None = None) -> tuple[str, ...]:
    """What browsers on and near this machine call it, and the operator's own public name with its pods."""
    host = socket.gethostname()
    own = (
        (public_host, f"*.{public_host}") if public_host and not _is_address(public_host) else (public_host,)
    )
    names = ("localhost", "*.localhost", "127.0.0.1", "::1", host, *own)
    return tuple(dict.fromkeys(name for name in names if name))


def ensure_certificates(directory: Path, names: tuple[str, ...], now: datetime) -> Certificates:
    """Make what is missing, close to its end, or made for other names."""
    paths = Certificates(directory / "ca.crt", directory / "server.crt", directory / "server.key")
    authority, authority_key, fresh = _ensure_authority(paths.authority, directory / "ca.key", now)
    if fresh or not paths.key.exists() or not _good(paths.certificate, names, now):
        certificate, key = _make_server(authority, authority_key, names, now)
        # The key first: a cut in between leaves a pair that does not fit, which `_good` cannot see, so the
        # certificate goes away before.
        paths.certificate.unlink(missing_ok=True)
        write_private(paths.key, _key_text(key))
        write_private(paths.certificate, _text(certificate) + _text(authority))
    return paths


def _ensure_authority(path: Path, key_path: Path, now: datetime) -> tuple[x509.Certificate, Key, bool]:
    if path.exists() and key_path.exists():
        authority = x509.load_pem_x509_certificate(path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        ours = isinstance(key, ec.EllipticCurvePrivateKey) and authority.public_key() == key.public_key()
        if ours and now + SERVER_VALID_FOR < authority.not_valid_after_utc:
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return authority, key, False
    authority, made = _make_authority(now)
    write_private(key_path, _key_text(made))
    write_private(path, _text(authority))
    # Public, unlike its neighbours: people copy it to their browsers.
    path.chmod(0o644)
    return authority, made, True


def _good(path: Path, names: tuple[str, ...], now: datetime) -> bool:
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        set(listed) == set(_alternative_names(names)) and now + RENEW_BEFORE < certificate.not_valid_after_utc
    )


def _make_authority(now: datetime) -> tuple[x509.Certificate, Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name(f"codepods on {socket.gethostname()}")
    builder = _builder(name, name, key, now, AUTHORITY_VALID_FOR)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _make_server(
    authority: x509.Certificate, authority_key: Key, names: tuple[str, ...], now: datetime
) -> tuple[x509.Certificate, Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_common_name(names[0]), authority.subject, key, now, SERVER_VALID_FOR)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        builder.add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, now: datetime, valid_for: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + valid_for)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternative_names(names: tuple[str, ...]) -> list[x509.GeneralName]:
    return [
        x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)
        for name in names
    ]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_text(key: Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
