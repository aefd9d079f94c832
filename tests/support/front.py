"""The whole front door for tests: nginx, the keyring it reads, two pods and a control plane behind it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from websockets.sync.client import ClientConnection, connect

from api.access_files import write_revoked
from api.access_token import AccessClaims, Keyring, Use, seal
from compose.nginx_config import NginxSettings, find_nginx
from state.revoked import Kind, Revoked
from tests.support.hints import Hints, hint_listener
from tests.support.nginx import WORKER_USER, Answer, RunningNginx, running_nginx, self_signed
from tests.support.ports import free_port
from tests.support.recording_pod import RecordingPod, recording_pod

SECRET = {"pod-a": "0123456789abcdef" * 4, "pod-b": "fedcba9876543210" * 4}
POD_DOMAIN = "pods.localhost"
PAGE = [("Sec-Fetch-Dest", "document"), ("Accept", "text/html,*/*;q=0.8")]


@dataclass
class Front:
    """nginx, the keyring it reads, two pods and a control plane behind it, and what it tells of sockets."""

    nginx: RunningNginx
    keyring: Keyring
    pods: dict[str, RecordingPod]
    api: RecordingPod
    hints: Hints

    def claims(self, pod: str, **changes: object) -> AccessClaims:
        """What the control plane would seal for this pod."""
        claims = AccessClaims(
            pod=pod,
            user="alice",
            epoch=1,
            upstream=self.pods[pod].upstream,
            secret=SECRET[pod],
            expires_at=int(time.time()) + 60,
            session_id=f"session-of-{pod}",
        )
        return replace(claims, **changes)  # type: ignore[arg-type]

    def token(self, pod: str, use: Use = "url", **changes: object) -> str:
        """A token for this pod; by the keyring as it is."""
        return seal(self.claims(pod, **changes), self.keyring, use)

    def cookie(self, pod: str, **changes: object) -> tuple[str, str]:
        """The Cookie header of a browser that has opened this pod."""
        return ("Cookie", f"__Secure-codepods-{pod}={self.token(pod, 'cookie', **changes)}")

    def open(self, pod: str) -> Answer:
        """Follow a fresh link, up to the redirect."""
        return self.nginx.ask(f"/pods/{pod}/?tkn={self.token(pod)}", PAGE)

    def share(self, pod: str, port: int, scope: str, link_id: str = "public", **changes: object) -> None:
        """As the control plane does when a port is opened to others."""
        claims = self.claims(pod, scope=f"{scope}:{port}", session_id=link_id, **changes)
        directory = self.nginx.settings.ports_directory
        assert directory is not None
        (directory / f"{pod}.{port}").write_text(seal(claims, self.keyring, "port"))

    def unshare(self) -> None:
        """All ports are private again."""
        directory = self.nginx.settings.ports_directory
        assert directory is not None
        for file in directory.iterdir():
            file.unlink()

    def reached(self) -> int:
        """How many requests have reached a pod."""
        return sum(len(pod.seen) for pod in self.pods.values())

    def revoke(self, kind: Kind, subject: str) -> None:
        """As the control plane does, of what was issued until now."""
        write_revoked(self.nginx.settings.keyring, Revoked.of([(kind, subject, int(time.time()))]))

    def write_keyring(self, keyring: Keyring) -> None:
        """As the control plane does: no signal to nginx."""
        self.keyring = keyring
        keyring.save(self.nginx.settings.keyring, group=WORKER_USER)


@contextmanager
def front_door(directory: Path, *, perl: bool = True) -> Iterator[Front]:
    """Everything up, on free ports; the gate's yes kept in memory if this nginx can, and `perl`."""
    keyring = Keyring.new()
    keyring.save(directory / "keyring.json", group=WORKER_USER)
    write_revoked(directory / "keyring.json", Revoked())
    certificate, key = self_signed(directory, "localhost", f"*.{POD_DOMAIN}")
    (directory / "ports").mkdir(mode=0o755)
    install = find_nginx()
    with recording_pod() as pod_a, recording_pod() as pod_b, recording_pod() as api, hint_listener() as hints:
        settings = NginxSettings(
            prefix=directory / "nginx",
            runtime=directory / "run",
            module=install.module,
            keyring=directory / "keyring.json",
            ports_directory=directory / "ports",
            certificate=certificate,
            certificate_key=key,
            public_host="localhost",
            https_port=free_port(),
            http_port=free_port(),
            api_upstream=api.upstream,
            upstream_networks=("127.0.0.1/32",),
            pod_domain=POD_DOMAIN,
            listen_addresses=("127.0.0.1",),
            worker_user=WORKER_USER,
            worker_processes=1,
            worker_connections=1024,
            hints_address=hints.address,
            http2_directive=install.http2_directive,
            perl_module=install.perl_module if perl else None,
        )
        with running_nginx(settings) as nginx:
            yield Front(nginx, keyring, {"pod-a": pod_a, "pod-b": pod_b}, api, hints)


@contextmanager
def socket_to(front: Front, target: str, *headers: tuple[str, str]) -> Iterator[ClientConnection]:
    """A WebSocket through nginx."""
    port = front.nginx.settings.https_port
    uri = f"wss://localhost:{port}{target}"
    tls = front.nginx.tls_for_sockets
    with connect(uri, ssl=tls, additional_headers=list(headers), proxy=None) as connection:
        yield connection


def assert_refused(answer: Answer) -> None:
    """A 403 page that says what to do and tells nothing else."""
    assert answer.status == 403, answer.body
    assert "Open it again from your course page" in answer.body
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Referrer-Policy") == "no-referrer"
    assert not answer.all("Set-Cookie")
