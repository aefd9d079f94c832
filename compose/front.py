"""What the operator says of the front door: whose certificate it has, and what balancer stands before it."""

import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from compose.problems import ProblemError

CALL_TIMEOUT_S = 10.0
# ACME clients renew a month before the end; what is nearer to it was not renewed.
SOON = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """`certificate` and `key`: the operator's own PEM files; both None: those of this installation."""

    trusted_peers: tuple[str, ...] = ()
    proxy_protocol: bool = False
    tls: bool = True
    hsts: bool = False
    subdomains: bool = False
    certificate: Path | None = None
    key: Path | None = None


def front_door_of(environ: Mapping[str, str]) -> FrontDoor:
    """From the settings. Raises `ProblemError` for those that cannot be, alone or together."""
    peers = tuple(environ.get("CODEPODS_TRUSTED_PEERS", "").replace(",", " ").split())
    front = FrontDoor(
        trusted_peers=peers,
        proxy_protocol=_is_yes(environ, "CODEPODS_PROXY_PROTOCOL", default=False),
        tls=_is_yes(environ, "CODEPODS_TLS", default=True),
        hsts=_is_yes(environ, "CODEPODS_HSTS", default=False),
        subdomains=environ.get("CODEPODS_URL_SHAPE") == "subdomain",
        certificate=_path(environ, "CODEPODS_TLS_CERTIFICATE"),
        key=_path(environ, "CODEPODS_TLS_KEY"),
    )
    for peer in peers:
        _check_network(peer)
    for holds, problem in _together(front):
        if not holds:
            raise ProblemError(problem)
    return front


def _is_yes(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name) or ("yes" if default else "no")
    if text not in ("yes", "no"):
        raise ProblemError(f"{name}={text!r} cannot be used: give yes or no.")
    return text == "yes"


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name)
    return Path(text).expanduser().absolute() if text else None


def _check_network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ProblemError(
            f"CODEPODS_TRUSTED_PEERS: {error}. Give networks such as 10.0.0.0/8, one address as 10.0.0.7/32."
        ) from error
    if "/" not in text:
        raise ProblemError(
            f"CODEPODS_TRUSTED_PEERS: {text} has no prefix length. For this one address give {text}/32."
        )


def _together(front: FrontDoor) -> list[tuple[bool, str]]:
    """(whether it can be, what to say if not)"""
    peers = "name the balancer's networks in CODEPODS_TRUSTED_PEERS, such as 10.0.0.0/8."
    return [
        (
            not front.proxy_protocol or bool(front.trusted_peers),
            f"CODEPODS_PROXY_PROTOCOL=yes believes a balancer, and none is named: {peers}",
        ),
        (
            front.tls or bool(front.trusted_peers),
            f"CODEPODS_TLS=no leaves TLS to a balancer, and none is named: {peers}",
        ),
        (
            (front.certificate is None) == (front.key is None),
            "CODEPODS_TLS_CERTIFICATE and CODEPODS_TLS_KEY belong together: give both files, or neither.",
        ),
        (
            front.tls or front.certificate is None,
            "With CODEPODS_TLS=no the certificate is the balancer's: unset CODEPODS_TLS_CERTIFICATE.",
        ),
    ]


def check_own_certificate(front: FrontDoor, public_host: str, now: datetime) -> str | None:
    """What its owner should know of it, if anything. Raises `ProblemError` when browsers would refuse it."""
    if front.certificate is None or front.key is None:
        return None
    certificate = _read_certificate(front.certificate)
    _check_key(front.key, front.certificate, certificate)
    ends_at = certificate.not_valid_after_utc
    if not certificate.not_valid_before_utc <= now < ends_at:
        begins_at = certificate.not_valid_before_utc
        raise ProblemError(
            f"CODEPODS_TLS_CERTIFICATE: {front.certificate} is good from {begins_at:%F} to {ends_at:%F}, "
            f"and today is {now:%F}. Renew it, or correct the clock."
        )
    wanted = [public_host, *([f"*.{public_host}"] if front.subdomains else [])]
    missing = [name for name in wanted if not _covers(_names(certificate), name)]
    if missing:
        raise ProblemError(
            f"CODEPODS_TLS_CERTIFICATE: {front.certificate} does not name {', '.join(missing)}. Get one that "
            f"does, or set CODEPODS_BASE_URL to a host that it names: {', '.join(_names(certificate))}."
        )
    if ends_at - now > SOON:
        return None
    return f"{front.certificate} ends on {ends_at:%F}: renew it, and reload nginx (docs/access.md)."


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        # The first is the server's; those of authorities follow.
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise ProblemError(
            f"CODEPODS_TLS_CERTIFICATE: {path} cannot be read as a PEM certificate: {error}"
        ) from error


def _check_key(path: Path, beside: Path, certificate: x509.Certificate) -> None:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ProblemError(
            f"CODEPODS_TLS_KEY: {path} cannot be read as a PEM key without a password: {error}"
        ) from error
    if key.public_key() != certificate.public_key():
        raise ProblemError(f"CODEPODS_TLS_KEY: {path} is not the key of {beside}: give the two that fit.")


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in listed]


def _covers(names: list[str], host: str) -> bool:
    """A wildcard stands for one label (RFC 9525, 6.3)."""
    return host in names or f"*.{host.partition('.')[2]}" in names


def lets_through(front: FrontDoor, port: int, certificate: Path) -> bool:
    """Whether nginx on the loopback, with this certificate, lets a request through to the API."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=CALL_TIMEOUT_S) as plain:
            if front.proxy_protocol:
                plain.sendall(b"PROXY UNKNOWN\r\n")
            with _secured(plain, certificate) if front.tls else plain as door:
                door.sendall(b"GET /api/v1/healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return door.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _secured(plain: socket.socket, certificate: Path) -> ssl.SSLSocket:
    """It has to be this very certificate, whoever signed it and whomever it names."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context.wrap_socket(plain)
