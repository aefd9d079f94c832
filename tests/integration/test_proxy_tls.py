"""What the front door says to those who knock: plain HTTP, TLS, its certificate; and what it logs of them."""

import http.client
import re
import socket
import ssl

import pytest

from tests.support.front import SECRET, Front, front_door
from tests.support.nginx import front_directory


def test_plain_http_leads_to_https(front: Front) -> None:
    """On its own port, and spoken to the TLS port by mistake."""
    settings = front.nginx.settings
    for port, status in ((settings.http_port, 308), (settings.https_port, 307)):
        assert port is not None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/pods/pod-a/?x=1", headers={"Host": f"localhost:{port}"})
        response = connection.getresponse()
        connection.close()
        assert response.status == status
        assert response.getheader("Location") == f"https://localhost:{settings.https_port}/pods/pod-a/?x=1"


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_current_tls_versions_get_forward_secret_ciphers(front: Front, version: str) -> None:
    """Mozilla's intermediate profile: 1.2 and 1.3, AEAD ciphers with ephemeral keys."""
    context = front.nginx.tls
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    with (
        socket.create_connection(("127.0.0.1", front.nginx.settings.https_port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        cipher = secure.cipher()

    assert cipher is not None
    assert re.match(r"(TLS_|ECDHE-).*(GCM|POLY1305)", cipher[0])


@pytest.mark.parametrize("cipher", ["ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-SHA384"])
def test_older_ciphers_are_refused(front: Front, cipher: str) -> None:
    """A client that knows nothing better does not get in."""
    context = front.nginx.tls
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with (
        socket.create_connection(("127.0.0.1", front.nginx.settings.https_port)) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_a_token_is_in_no_log(front: Front) -> None:
    """Neither good nor refused ones, nor the session's secret: access log, error log, the pod."""
    good, bad = front.token("pod-a"), front.token("pod-b")
    front.nginx.ask(f"/pods/pod-a/?tkn={good}", [("Referer", "https://course.example/")])
    front.nginx.ask(f"/pods/pod-a/?tkn={bad}")
    front.nginx.ask(f"/pods/pod-a?tkn={good}")
    front.nginx.ask(f"/nothing?tkn={good}")
    front.nginx.ask(f"/pods/pod-a/?tkn={good}", method="POST", body=b"x" * 100_000)
    front.nginx.ask(f"/pods/pod-a/?%74kn={good}", [front.cookie("pod-a")])
    front.nginx.ask(f"/pods/pod-a/?x=1&tkn=&TKN={good}", [front.cookie("pod-a")])
    front.nginx.ask("/pods/pod-a/last", [front.cookie("pod-a")])

    told = front.nginx.access_log() + front.nginx.error_log()
    told += "".join(f"{seen.target} {seen.headers}" for seen in front.pods["pod-a"].seen)
    for token in (good, bad):
        assert token[-40:] not in told
    assert SECRET["pod-a"] not in front.nginx.access_log() + front.nginx.error_log()
    assert '"refusal":"does_not_open"' in told
    assert '"session":"session-of-pod-a"' in told


def test_too_many_links_at_once_are_told_to_wait() -> None:
    """Beyond a class behind one address: 429 with a page, when to come again, and still no token in a log."""
    with front_directory() as directory, front_door(directory) as front:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", front.nginx.settings.https_port, context=front.nginx.tls
        )
        token = front.token("pod-a")
        statuses, response = [], None
        while response is None or (response.status == 303 and len(statuses) < 5000):
            connection.request("GET", f"/pods/pod-a/?tkn={token}")
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()

        assert statuses[:200] == [303] * 200
        assert (response.status, response.getheader("Retry-After")) == (429, "10")
        assert token[-40:] not in front.nginx.error_log()
