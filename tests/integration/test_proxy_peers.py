"""Balancers in front of nginx: believed where they are named, and nobody else is."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.support.front import Front
from tests.support.nginx import running_nginx
from tests.support.ports import free_port

CLIENT = "203.0.113.7"


@contextmanager
def behind(front: Front, **changes: Any) -> Iterator[Front]:
    """The same front door with other settings."""
    settings = front.nginx.settings
    number = str(free_port())
    changed = replace(
        settings,
        prefix=settings.prefix.with_name(f"nginx-{number}"),
        runtime=settings.runtime.with_name(f"run-{number}"),
        https_port=free_port(),
        http_port=None,
        **changes,
    )
    with running_nginx(changed) as nginx:
        yield replace(front, nginx=nginx)


def seen_by_pod(front: Front) -> tuple[list[str], list[str], list[str]]:
    """Whom the pod takes for its client, and how it was reached."""
    [seen] = front.pods["pod-a"].seen
    return seen.all("x-forwarded-for"), seen.all("x-real-ip"), seen.all("x-forwarded-proto")


@pytest.mark.parametrize(
    ("peers", "said", "client"),
    [
        (("127.0.0.1/32",), CLIENT, CLIENT),
        (("127.0.0.1/32",), f"6.6.6.6, {CLIENT}", CLIENT),
        (("127.0.0.1/32", "203.0.113.0/24"), f"198.51.100.9, {CLIENT}", "198.51.100.9"),
        (("10.0.0.0/8",), CLIENT, "127.0.0.1"),
        ((), CLIENT, "127.0.0.1"),
    ],
)
def test_only_named_peers_say_who_the_client_is(
    front: Front, peers: tuple[str, ...], said: str, client: str
) -> None:
    """The nearest that is not one of them; what the client itself wrote in front of it is not believed."""
    with behind(front, trusted_peers=peers) as there:
        headers = [there.cookie("pod-a"), ("X-Forwarded-For", said), ("X-Real-IP", "6.6.6.6")]
        assert there.nginx.ask("/pods/pod-a/", headers).status == 200

    assert seen_by_pod(front) == ([client], [client], ["https"])


@pytest.mark.parametrize(("peers", "client"), [(("127.0.0.1/32",), CLIENT), (("10.0.0.0/8",), "127.0.0.1")])
def test_the_proxy_protocol_counts_from_named_peers(
    front: Front, peers: tuple[str, ...], client: str
) -> None:
    """Through TLS, as balancers of connections do; X-Forwarded-For counts no more then."""
    with behind(front, trusted_peers=peers, proxy_protocol=True) as there:
        assert said_after_proxy_line(there, f"PROXY TCP4 {CLIENT} 127.0.0.1 5 443\r\n").startswith(
            b"HTTP/1.1 200"
        )

    assert seen_by_pod(front) == ([client], [client], ["https"])


def test_without_its_line_a_connection_is_refused(front: Front) -> None:
    """Who asks for the PROXY protocol gets nothing else."""
    with (
        behind(front, trusted_peers=("127.0.0.1/32",), proxy_protocol=True) as there,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        said_after_proxy_line(there, "")

    assert front.reached() == 0


def test_a_balancer_may_do_the_tls(front: Front) -> None:
    """Plain HTTP from it; the pod is told of https all the same, and the cookie stays a secure one."""
    with behind(front, trusted_peers=("127.0.0.1/32",), tls=False) as there:
        port = there.nginx.settings.https_port
        host = f"Host: localhost:{port}\r\nConnection: close\r\n\r\n"
        redeemed = plain(port, f"GET /pods/pod-a/?tkn={there.token('pod-a')} HTTP/1.1\r\n{host}")
        page = plain(port, "GET /pods/pod-a/ HTTP/1.1\r\n{}: {}\r\n".format(*there.cookie("pod-a")) + host)

    assert b"Set-Cookie: __Secure-codepods-pod-a=" in redeemed
    assert b"; Secure; HttpOnly; " in redeemed
    assert page.startswith(b"HTTP/1.1 200")
    assert seen_by_pod(front)[2] == ["https"]


def said_after_proxy_line(front: Front, line: str) -> bytes:
    """What nginx answers to a request for pod-a over TLS, after this line in the clear."""
    port = front.nginx.settings.https_port
    with socket.create_connection(("127.0.0.1", port), timeout=20) as bare:
        bare.sendall(line.encode())
        with front.nginx.tls.wrap_socket(bare, server_hostname="localhost") as secure:
            name, cookie = front.cookie("pod-a")
            secure.sendall(
                f"GET /pods/pod-a/ HTTP/1.1\r\nHost: localhost\r\n{name}: {cookie}\r\n"
                "X-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n".encode()
            )
            return secure.recv(4096)


def plain(port: int, request: str) -> bytes:
    """What nginx answers without TLS."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as bare:
        bare.sendall(request.encode())
        answer = b""
        while came := bare.recv(4096):
            answer += came
        return answer
