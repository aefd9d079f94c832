"""The real nginx as the operator's settings make it: own certificate files, a balancer before it."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from compose.certificates import Certificates, ensure_certificates
from compose.environment import Environment, environment_of
from compose.front import lets_through
from compose.installation import Installation
from compose.layout import Layout, make_directories
from compose.processes import wait_until
from compose.programs import ensure_secrets, front_door
from tests.support.nginx import front_directory
from tests.support.ports import free_port
from tests.support.recording_pod import RecordingPod, recording_pod

CLIENT = "203.0.113.7"
START_TIMEOUT_S_MAX = 60.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The operator's certificate, of an authority of their own."""
    return ensure_certificates(tmp_path_factory.mktemp("own"), ("ide.localhost",), datetime.now(UTC))


@contextmanager
def started(api: RecordingPod, settings: dict[str, str]) -> Iterator[tuple[Environment, Path]]:
    """nginx as `make up` starts it before this API, and the certificate that it should show."""
    https, http, hints = (free_port() for _ in range(3))
    ports = {"HTTPS": https, "HTTP": http, "HINTS": hints, "API": api.port}
    environ = {f"CODEPODS_{name}_PORT": str(port) for name, port in ports.items()}
    environ["CODEPODS_BASE_URL"] = "https://ide.localhost"
    with front_directory() as directory:
        layout = Layout(directory / "home")
        make_directories(layout, ())
        environment = environment_of(layout, Installation("abcdef", (), 0), {**environ, **settings})
        certificates = ensure_secrets(environment)
        nginx = front_door(environment, certificates)[0]
        certificate = environment.front.certificate or certificates.certificate
        nginx.start()
        try:
            assert wait_until(
                lambda: lets_through(environment.front, https, certificate), START_TIMEOUT_S_MAX
            )
            yield environment, certificate
        finally:
            nginx.stop()


def test_the_operators_own_certificate_is_shown(own: Certificates) -> None:
    """Verified as a browser does that knows the authority; plain HTTP is sent on to the address in links."""
    files = {"CODEPODS_TLS_CERTIFICATE": str(own.certificate), "CODEPODS_TLS_KEY": str(own.key)}
    trusting = ssl.create_default_context(cafile=str(own.authority))
    with recording_pod() as api, started(api, files) as (environment, certificate):
        with (
            socket.create_connection(("127.0.0.1", environment.ports.https), timeout=20) as plain,
            trusting.wrap_socket(plain, server_hostname="ide.localhost") as door,
        ):
            shown = door.getpeercert(binary_form=True)
        redirected = said(environment.ports.http, "GET /pods/x HTTP/1.0\r\nHost: ide.localhost\r\n\r\n")

    assert certificate == own.certificate
    leaf = x509.load_pem_x509_certificate(own.certificate.read_bytes())
    assert shown == leaf.public_bytes(Encoding.DER)
    assert b"Location: https://ide.localhost/pods/x\r\n" in redirected


@pytest.mark.parametrize("tls", ["yes", "no"])
def test_behind_a_balancer_with_the_proxy_protocol(tls: str) -> None:
    """Who it says is asking is whom the API hears of, with TLS by nginx or by the balancer."""
    settings = {
        "CODEPODS_TRUSTED_PEERS": "127.0.0.0/8",
        "CODEPODS_PROXY_PROTOCOL": "yes",
        "CODEPODS_TLS": tls,
    }
    with recording_pod() as api, started(api, settings) as (environment, certificate):
        port = environment.ports.https
        line = f"PROXY TCP4 {CLIENT} 127.0.0.1 5 443\r\n"
        trusting = ssl.create_default_context(cafile=str(certificate)) if tls == "yes" else None
        answer = said(port, "GET /api/v1/x HTTP/1.0\r\nHost: ide.localhost\r\n\r\n", line, trusting)
        without = said(port, "GET /api/v1/y HTTP/1.0\r\nHost: ide.localhost\r\n\r\n", "", None)

    assert answer.startswith(b"HTTP/1.1 200")
    assert not without.startswith(b"HTTP/1.1 200")
    last = api.seen[-1]
    assert (last.target, last.all("x-forwarded-for"), last.all("x-forwarded-proto")) == (
        "/api/v1/x",
        [CLIENT],
        ["https"],
    )


def said(port: int, request: str, line: str = "", tls: ssl.SSLContext | None = None) -> bytes:
    """What nginx answers to this request, after this line in the clear."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        plain.sendall(line.encode())
        with tls.wrap_socket(plain, server_hostname="ide.localhost") if tls else plain as door:
            door.sendall(request.encode())
            answer = b""
            with suppress(ConnectionResetError):
                while came := door.recv(4096):
                    answer += came
            return answer
