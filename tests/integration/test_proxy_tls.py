"""What the front door says to those who knock: plain HTTP, TLS, its certificate; and what it logs of them."""

import http.client
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from tests.support.front import PAGE, SECRET, Front, front_door, socket_to
from tests.support.nginx import front_directory, running_nginx, self_signed
from tests.support.ports import free_port

# nginx has a new worker in a tenth of a second; this is for a machine that is busy.
RENEWED_S_MAX = 60.0


def test_plain_http_leads_to_https(front: Front) -> None:
    """On its own port, and spoken to the TLS port by mistake."""
    settings = front.nginx.settings
    for port, status in ((settings.http_port, 308), (settings.https_port, 307)):
        assert port is not None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/pods/pod-a/?x=1", headers={"Host": f"localhost:{port}"})
        response = connection.getresponse()
        connection.close()
        assert response.status == status
        assert response.getheader("Location") == f"https://localhost:{settings.https_port}/pods/pod-a/?x=1"


def certificate_shown(front: Front) -> bytes:
    """To who connects now, as it came."""
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", front.nginx.settings.https_port), timeout=20) as plain,
        unchecked.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def test_a_renewed_certificate_is_shown_after_a_reload_that_cuts_nobody() -> None:
    """In the same files. Requests go on, on kept connections and on new ones; an open socket stays."""
    with front_directory() as directory, front_door(directory) as front:
        settings = front.nginx.settings
        cookie = front.cookie("pod-a")
        trusting = ssl.create_default_context(cafile=str(settings.certificate))
        trusting.check_hostname = False
        before = certificate_shown(front)
        with socket_to(front, "/pods/pod-a/ws", cookie) as connection:
            self_signed(settings.certificate.parent, "localhost")
            trusting.load_verify_locations(cafile=str(settings.certificate))
            assert certificate_shown(front) == before
            front.nginx.process.send_signal(signal.SIGHUP)

            deadline = time.monotonic() + RENEWED_S_MAX
            asked = 0
            with kept_connection(front, trusting) as kept:
                while certificate_shown(front) == before or asked < 20:
                    assert time.monotonic() < deadline
                    with kept_connection(front, trusting) as new:
                        assert [status_by(kept, cookie), status_by(new, cookie)] == [200, 200]
                    asked += 1
            connection.send("still there")
            assert connection.recv() == "still there"
        with socket_to(front, "/pods/pod-a/ws", cookie) as connection:
            connection.send("new")
            assert connection.recv() == "new"


@contextmanager
def kept_connection(front: Front, trusting: ssl.SSLContext) -> Iterator[http.client.HTTPSConnection]:
    """As a browser's."""
    port = front.nginx.settings.https_port
    with closing(http.client.HTTPSConnection("127.0.0.1", port, context=trusting, timeout=20)) as connection:
        yield connection


def status_by(connection: http.client.HTTPSConnection, cookie: tuple[str, str]) -> int:
    """Of a page of pod-a; asked once more if the connection was closed meanwhile, as browsers do."""
    try:
        return status_once(connection, cookie)
    except OSError:
        connection.close()
        return status_once(connection, cookie)


def status_once(connection: http.client.HTTPSConnection, cookie: tuple[str, str]) -> int:
    """Of a page of pod-a."""
    connection.request("GET", "/pods/pod-a/", headers=dict([cookie]))
    response = connection.getresponse()
    response.read()
    return response.status


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


def test_browsers_get_http_2(front: Front) -> None:
    """Whoever offers it; others go on with the older one."""
    chosen = []
    for offered in (["h2", "http/1.1"], ["http/1.1"]):
        context = front.nginx.tls
        context.set_alpn_protocols(offered)
        with (
            socket.create_connection(("127.0.0.1", front.nginx.settings.https_port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            chosen.append(secure.selected_alpn_protocol())

    assert chosen == ["h2", "http/1.1"]


def test_browsers_are_told_to_stay_with_https_where_that_is_wanted(front: Front) -> None:
    """On a pod's pages, refusals, links, the start page and the API alike."""
    with front_directory() as directory:
        own = replace(front.nginx.settings, prefix=directory / "nginx", runtime=directory / "run")
        settings = replace(own, hsts=True, https_port=free_port(), http_port=None)
        with running_nginx(settings) as nginx:
            away = front.cookie("pod-b", upstream=f"127.0.0.1:{free_port()}")
            answers = [
                nginx.ask("/pods/pod-a/", [front.cookie("pod-a"), *PAGE]),
                nginx.ask("/pods/pod-a/", PAGE),
                nginx.ask(f"/pods/pod-a/?tkn={front.token('pod-a')}", PAGE),
                nginx.ask("/pods/pod-b/", [away, *PAGE]),
                nginx.ask("/api/v1/pods"),
            ]

    assert [answer.status for answer in answers] == [200, 403, 303, 503, 200]
    assert {answer.header("Strict-Transport-Security") for answer in answers} == {"max-age=63072000"}
    assert front.nginx.ask("/pods/pod-a/", PAGE).header("Strict-Transport-Security") is None


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


@pytest.mark.parametrize("posted", [False, True])
def test_too_many_links_at_once_are_told_to_wait(posted: bool) -> None:
    """Beyond a class behind one address: 429 with a page, when to come again, and still no token in a log."""
    with front_directory() as directory, front_door(directory) as front:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", front.nginx.settings.https_port, context=front.nginx.tls
        )
        token = front.token("pod-a")
        statuses, response = [], None
        while response is None or (response.status == 303 and len(statuses) < 5000):
            if posted:
                form = {"Content-Type": "application/x-www-form-urlencoded"}
                connection.request("POST", "/pods/pod-a/_start/open", f"tkn={token}", form)
            else:
                connection.request("GET", f"/pods/pod-a/?tkn={token}")
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()

        assert statuses[:200] == [303] * 200
        assert (response.status, response.getheader("Retry-After")) == (429, "10")
        assert token[-40:] not in front.nginx.error_log()
