"""A real nginx for tests: on free loopback ports, from its own directory, with its own certificate."""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compose.nginx_config import NginxInstall, NginxSettings, command, find_nginx, prepare

START_TIMEOUT_S_MAX = 60.0
STOP_TIMEOUT_S_MAX = 60.0
LOG_WAIT_S_MAX = 60.0
# How long nginx may take for its first word, and how long it is silent when no second answer comes.
SILENCE_S, PAUSE_S = 20.0, 0.3
WORKER_USER = "www-data" if os.geteuid() == 0 else None


@contextlib.contextmanager
def front_directory() -> Iterator[Path]:
    """A directory that nginx's workers may enter; pytest's own is closed to them when root runs the tests."""
    path = Path(tempfile.mkdtemp(prefix="codepods-front-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def self_signed(directory: Path, *names: str) -> tuple[Path, Path]:
    """Paths of a certificate for these names and its key."""
    certificate, key = directory / "server.crt", directory / "server.key"
    alternatives = ",".join(f"DNS:{name}" for name in names)
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-days", "2", "-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@dataclass(frozen=True)
class Answer:
    """What came back, with every header as it came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str

    def header(self, name: str) -> str | None:
        """The one header of this name."""
        found = self.all(name)
        assert len(found) <= 1, found
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        """Every header of this name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@dataclass
class RunningNginx:
    """nginx in the foreground below this test."""

    settings: NginxSettings
    install: NginxInstall
    process: subprocess.Popen[bytes]

    @property
    def tls(self) -> ssl.SSLContext:
        """Trusts this nginx's certificate."""
        context = ssl.create_default_context(cafile=str(self.settings.certificate))
        context.check_hostname = False
        return context

    @property
    def tls_for_sockets(self) -> ssl.SSLContext:
        """For a client that reads in one thread and writes in another.

        TLS 1.3 sends tickets after the handshake. Who reads them while another thread writes loses what is
        written, once in 300 sockets here: OpenSSL's connections are not for two threads at once.
        """
        context = self.tls
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    @property
    def host(self) -> str:
        """What a browser puts into Host."""
        return f"{self.settings.public_host}:{self.settings.https_port}"

    def ask(
        self,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        method: str = "GET",
        host: str | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request over TLS. Target and headers go out exactly as given; no redirect is followed."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.settings.https_port, context=self.tls, timeout=20
        )
        with contextlib.closing(connection):
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", host or self.host)
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, tuple(response.getheaders()), response.read().decode())

    def say(self, raw: bytes) -> bytes:
        """What nginx answers to these bytes over TLS, up to where it closes or pauses; b"": nothing."""
        with (
            socket.create_connection(("127.0.0.1", self.settings.https_port), timeout=20) as plain,
            self.tls.wrap_socket(plain, server_hostname=self.settings.public_host) as secure,
        ):
            secure.sendall(raw)
            answer = b""
            with contextlib.suppress(TimeoutError):
                secure.settimeout(SILENCE_S)
                while chunk := secure.recv(65_536):
                    answer += chunk
                    secure.settimeout(PAUSE_S)
            return answer

    def reload(self) -> None:
        """Read the configuration again; open sockets stay."""
        subprocess.run(command(self.install, self.settings, "-s", "reload"), check=True, capture_output=True)

    def access_log(self) -> str:
        """All that is logged of requests that have ended, up to one of our own: nginx writes in pieces."""
        last = f"/logged-{secrets.token_hex(8)}"
        self.ask(last)
        deadline = time.monotonic() + LOG_WAIT_S_MAX
        while last not in (told := (self.settings.prefix / "logs" / "access.log").read_text()):
            assert time.monotonic() < deadline, "nginx wrote no log"
            time.sleep(0.05)
        return told

    def error_log(self) -> str:
        """nginx's own complaints."""
        return (self.settings.prefix / "logs" / "error.log").read_text()


@contextlib.contextmanager
def running_nginx(settings: NginxSettings) -> Iterator[RunningNginx]:
    """nginx with these settings, until the end of the block. If it does not come up: what nginx says."""
    install = find_nginx()
    prepare(settings)
    with subprocess.Popen(command(install, settings), stderr=subprocess.PIPE) as process:
        nginx = RunningNginx(settings, install, process)
        try:
            _await_started(nginx)
            yield nginx
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S_MAX)


def _await_started(nginx: RunningNginx) -> None:
    """Its ports were open before it was there; its pid is written when it has read its configuration."""
    deadline = time.monotonic() + START_TIMEOUT_S_MAX
    pid_file = nginx.settings.prefix / "nginx.pid"
    while time.monotonic() < deadline and nginx.process.poll() is None:
        if pid_file.exists():
            return
        time.sleep(0.02)
    nginx.process.kill()
    _, told = nginx.process.communicate()
    raise AssertionError(f"nginx did not start: {told.decode()}")
