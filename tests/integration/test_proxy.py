"""The access path through a real nginx: opening, sockets, keys, and what is shown when a pod is not there."""

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from api.access_token import open_token, seal
from compose.processes import wait_until
from tests.support.front import PAGE, POD_DOMAIN, SECRET, Front, assert_refused, front_door, socket_to
from tests.support.nginx import front_directory, running_nginx
from tests.support.ports import free_port
from tests.support.recording_pod import recording_pod

FILES_WAIT_S_MAX = 60.0

# ---- a link opens ----------------------------------------------------------------------------------------


def test_a_link_becomes_a_cookie_of_its_pod_and_a_clean_address(front: Front) -> None:
    """The token goes, the rest of the address stays, and the cookie is for this pod only."""
    answer = front.nginx.ask(f"/pods/pod-a/?folder=/workspaces/x%20y&tkn={front.token('pod-a')}&a=1", PAGE)

    assert answer.status == 303
    assert answer.header("Location") == "/pods/pod-a/?folder=/workspaces/x%20y&a=1"
    cookie = answer.header("Set-Cookie") or ""
    name, _, rest = cookie.partition("=")
    value, *attributes = rest.split("; ")
    assert name == "__Secure-codepods-pod-a"
    assert value.startswith("v1.")
    assert attributes == ["Path=/pods/pod-a/", "Max-Age=43200", "Secure", "HttpOnly", "SameSite=Lax"]
    assert front.reached() == 0


def test_the_cookie_outlives_the_link(front: Front) -> None:
    """A link is for minutes; what it opens is for the working day, with everything else as the link said."""
    link = front.claims("pod-a")
    answer = front.nginx.ask(f"/pods/pod-a/?tkn={seal(link, front.keyring, 'url')}", PAGE)
    cookie = (answer.header("Set-Cookie") or "").partition("=")[2].partition(";")[0]
    now = int(time.time())

    session = open_token(cookie, front.keyring, "cookie", "pod-a", now)

    assert now + 43_190 <= session.expires_at <= now + 43_200
    assert replace(session, expires_at=link.expires_at) == link


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_a_visit_redeems_a_link(front: Front, method: str) -> None:
    """Forms have an address of their own."""
    assert_refused(
        front.nginx.ask(f"/pods/pod-a/?tkn={front.token('pod-a')}", PAGE, method=method, body=b"x")
    )


def test_the_cookie_opens_the_pod(front: Front) -> None:
    """The pod sees its own session and the public name; never the token or our cookie."""
    cookie = (front.open("pod-a").header("Set-Cookie") or "").partition(";")[0]

    answer = front.nginx.ask(
        "/pods/pod-a/?folder=/workspaces/x", [("Cookie", f"theme=dark; {cookie}"), *PAGE]
    )

    assert answer.status == 200
    [seen] = front.pods["pod-a"].seen
    assert seen.target == "/?folder=/workspaces/x"
    assert seen.all("cookie") == [f"code-server-session={SECRET['pod-a']}; theme=dark"]
    assert seen.all("host") == seen.all("x-forwarded-host") == [front.nginx.host]
    assert seen.all("x-forwarded-proto") == ["https"]
    assert seen.all("x-forwarded-for") == ["127.0.0.1"]
    assert answer.header("Service-Worker-Allowed") is None


def test_cookies_of_two_pods_live_side_by_side(front: Front) -> None:
    """One browser, two pods: each request finds its own."""
    both = "; ".join((front.open(pod).header("Set-Cookie") or "").partition(";")[0] for pod in SECRET)

    for pod, secret in SECRET.items():
        assert front.nginx.ask(f"/pods/{pod}/x", [("Cookie", both)]).status == 200
        assert front.pods[pod].seen[-1].all("cookie") == [f"code-server-session={secret}"]


def test_a_host_name_for_each_pod(front: Front) -> None:
    """The same gate without a path: the cookie is bound to the host, and the path is the pod's whole path."""
    host = f"pod-a.{POD_DOMAIN}:{front.nginx.settings.https_port}"

    opened = front.nginx.ask(f"/?folder=/w&tkn={front.token('pod-a')}", PAGE, host=host)

    assert (opened.status, opened.header("Location")) == (303, "/?folder=/w")
    cookie = opened.header("Set-Cookie") or ""
    assert re.fullmatch(
        r"__Host-codepods=v1\.[^;]+; Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=Lax", cookie
    )
    front.pods["pod-a"].answers["//a/%2F..%2f"] = (200, [("Service-Worker-Allowed", "/deeper/")])
    answer = front.nginx.ask("//a/%2F..%2f", [("Cookie", cookie.partition(";")[0])], host=host)
    assert answer.status == 200
    assert answer.header("Service-Worker-Allowed") == "/"
    assert front.pods["pod-a"].seen[-1].target == "//a/%2F..%2f"
    other = host.replace("pod-a", "pod-b")
    assert_refused(front.nginx.ask("/", [("Cookie", cookie.partition(";")[0]), *PAGE], host=other))


def test_a_host_name_is_not_led_elsewhere_by_its_path(front: Front) -> None:
    """`//evil.example/?tkn=` does not become a redirect to evil.example."""
    host = f"pod-a.{POD_DOMAIN}:{front.nginx.settings.https_port}"
    for path in ("//evil.example/", "/\\evil.example/", "///evil.example/"):
        answer = front.nginx.ask(f"{path}?tkn={front.token('pod-a')}", PAGE, host=host)

        assert answer.header("Location") == "/evil.example/", path


def test_a_pods_name_without_its_slash_leads_to_the_pod(front: Front) -> None:
    """`/pods/x` would break the relative addresses of the IDE."""
    answer = front.nginx.ask("/pods/pod-a?folder=/w")

    assert (answer.status, answer.header("Location")) == (303, "/pods/pod-a/?folder=/w")


# ---- sockets ---------------------------------------------------------------------------------------------


def test_a_socket_passes_through(front: Front) -> None:
    """Echo through TLS, with the session injected."""
    with socket_to(front, "/pods/pod-a/ws?x=1", front.cookie("pod-a")) as connection:
        connection.send("hello")

        assert connection.recv() == "hello"
    [seen] = front.pods["pod-a"].seen
    assert (seen.method, seen.target) == ("SOCKET", "/ws?x=1")
    assert seen.all("cookie") == [f"code-server-session={SECRET['pod-a']}"]


ORIGINS = [
    # (method or SOCKET, Origin, Sec-Fetch-Site), let in; HOST stands for the host with its port
    ("SOCKET", "https://HOST", None, True),
    ("SOCKET", "HTTPS://HOST", None, True),
    ("SOCKET", None, None, True),
    ("SOCKET", "https://localhost", None, False),
    ("SOCKET", "http://HOST", None, False),
    ("SOCKET", "https://HOST.evil.example", None, False),
    ("SOCKET", "https://evil.example", "same-origin", False),
    ("SOCKET", "null", None, False),
    ("POST", "https://evil.example", "cross-site", False),
    ("POST", "null", "same-origin", True),
    ("POST", "null", "same-site", False),
    ("DELETE", "https://HOST", "same-origin", True),
    ("DELETE", "https://evil.example|same-origin|https://HOST", None, False),
    ("GET", "https://evil.example", "cross-site", True),
]


@pytest.mark.parametrize(("method", "origin", "site", "let_in"), ORIGINS)
def test_a_page_from_elsewhere_opens_no_socket_and_changes_nothing(
    front: Front, method: str, origin: str | None, site: str | None, let_in: bool
) -> None:
    """Even with a cookie that was let in a moment ago: SameSite does not stop pages of the same site."""
    cookie = front.cookie("pod-a")
    front.nginx.ask("/pods/pod-a/", [cookie])
    named = [("Origin", origin.replace("HOST", front.nginx.host))] if origin else []
    headers = [cookie, *named, *([("Sec-Fetch-Site", site)] if site else [])]

    assert status_of(front, method, headers) == ((101 if method == "SOCKET" else 200) if let_in else 403)
    assert front.reached() == (2 if let_in else 1)


def status_of(front: Front, method: str, headers: list[tuple[str, str]]) -> int:
    """How a request to pod-a by this method, or a socket, is answered."""
    if method != "SOCKET":
        return front.nginx.ask("/pods/pod-a/", headers, method=method, body=b"").status
    try:
        with socket_to(front, "/pods/pod-a/ws", *headers):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_an_open_socket_holds_two_files_of_the_worker() -> None:
    """Its client's and its pod's, and no file of a kept answer: 10,000 of them have to fit."""
    with front_directory() as directory, front_door(directory) as front, ExitStack() as stack:
        cookie = front.cookie("pod-a")
        # What the worker opens once: the connection on which the gate was asked, logs, kept answers.
        with socket_to(front, "/pods/pod-a/ws", cookie):
            front.nginx.ask("/pods/pod-a/", [cookie])
        before = settled(lambda: open_files(front))
        for number in range(1, 6):
            stack.enter_context(socket_to(front, "/pods/pod-a/ws", cookie))
            assert wait_until(lambda: open_files(front) == before + 2 * number, FILES_WAIT_S_MAX)  # noqa: B023
        assert settled(lambda: open_files(front)) == before + 10


def open_files(front: Front) -> int:
    """Of nginx's one worker."""
    master = front.nginx.process.pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    [worker] = [pid for pid in children if b"worker process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return len(list(Path(f"/proc/{worker}/fd").iterdir()))


def settled(count: Callable[[], int]) -> int:
    """Once it has stayed the same for a second."""
    last, same_since = count(), time.monotonic()
    while time.monotonic() - same_since < 1:
        time.sleep(0.05)
        if (now := count()) != last:
            last, same_since = now, time.monotonic()
    return last


def test_a_socket_outlives_a_reload(front: Front) -> None:
    """The old worker serves it to the end."""
    with socket_to(front, "/pods/pod-a/ws", front.cookie("pod-a")) as connection:
        front.nginx.reload()
        for text in ("still", "there"):
            connection.send(text)
            assert connection.recv() == text
            assert front.open("pod-a").status == 303


# ---- keys ------------------------------------------------------------------------------------------------


def test_a_rotated_key_counts_at_once_without_a_reload(front: Front) -> None:
    """New links open by the new key, cookies of the old one go on, until it leaves the ring. Sockets stay."""
    old_cookie, old_link = front.cookie("pod-a"), front.token("pod-a")
    with socket_to(front, "/pods/pod-a/ws", old_cookie) as connection:
        front.write_keyring(front.keyring.rotated())
        assert front.nginx.ask("/pods/pod-a/", [old_cookie]).status == 200
        assert front.nginx.ask(f"/pods/pod-a/?tkn={old_link}").status == 303
        assert front.open("pod-a").status == 303

        front.write_keyring(front.keyring.rotated())
        assert_refused(front.nginx.ask(f"/pods/pod-a/?tkn={old_link}", PAGE))
        assert_refused_in_time(front, old_cookie)
        connection.send("still there")
        assert connection.recv() == "still there"


def assert_refused_in_time(front: Front, cookie: tuple[str, str]) -> None:
    """The gate's last yes is kept for some seconds; from then on it is refused."""
    deadline = time.monotonic() + 4 * front.nginx.settings.gate_kept_s
    while (answer := front.nginx.ask("/pods/pod-a/", [cookie, *PAGE])).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert_refused(answer)


def test_a_revoked_key_opens_nothing_more(front: Front) -> None:
    """Taken out of the ring, all it sealed is refused: what is new at once, what was let in soon."""
    leaked = front.keyring.current
    cookie, used = front.cookie("pod-a"), front.cookie("pod-a")
    front.nginx.ask("/pods/pod-a/", [used])

    front.write_keyring(front.keyring.without(leaked))

    assert_refused(front.nginx.ask("/pods/pod-a/", [cookie, *PAGE]))
    assert_refused_in_time(front, used)
    assert front.open("pod-a").status == 303


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", '{"current":"k","keys":{"k":"AAAA"}}'])
def test_without_a_good_keyring_everything_is_closed(front: Front, content: str | None) -> None:
    """Missing, half-written or wrong: refused, and open again as soon as it is restored."""
    path = front.nginx.settings.keyring
    cookie, link = front.cookie("pod-a"), front.token("pod-a")
    path.unlink()
    if content is not None:
        path.write_text(content)
        path.chmod(0o644)

    assert_refused(front.nginx.ask("/pods/pod-a/", [cookie, *PAGE]))
    assert_refused(front.nginx.ask(f"/pods/pod-a/?tkn={link}", PAGE))
    front.write_keyring(front.keyring)
    assert front.nginx.ask("/pods/pod-a/", [cookie]).status == 200


# ---- when it cannot be served ----------------------------------------------------------------------------


def test_a_pod_that_is_not_there_is_waited_for(front: Front) -> None:
    """A page that tries again, a JSON code for scripts, a short word for sockets; never a 502."""
    cookie = front.cookie("pod-a", upstream=f"127.0.0.1:{free_port()}")

    page = front.nginx.ask("/pods/pod-a/", [cookie, *PAGE])
    script = front.nginx.ask("/pods/pod-a/x", [cookie, ("Sec-Fetch-Dest", "empty")])
    with pytest.raises(InvalidStatus) as refused, socket_to(front, "/pods/pod-a/ws", cookie):
        pass

    assert (page.status, page.header("Content-Type")) == (503, "text/html; charset=utf-8")
    assert "tries again by itself" in page.body
    assert page.header("Cache-Control") == "no-store"
    assert page.header("Retry-After") == "5"
    assert (script.status, script.json()["code"]) == (503, "pod_unreachable")
    assert script.header("Content-Type") == "application/problem+json"
    assert refused.value.response.status_code == 503
    assert refused.value.response.body == b"pod_unreachable\n"


def test_a_pod_that_comes_back_is_served_again(front: Front) -> None:
    """The same cookie, as soon as the pod answers on its address."""
    port = free_port()
    cookie = front.cookie("pod-a", upstream=f"127.0.0.1:{port}")
    assert front.nginx.ask("/pods/pod-a/", [cookie]).status == 503

    with recording_pod(port):
        assert front.nginx.ask("/pods/pod-a/", [cookie]).status == 200


def test_a_pods_own_errors_are_its_own(front: Front) -> None:
    """What an application answers passes unchanged."""
    for status in (403, 404, 500, 502, 503):
        front.pods["pod-a"].answers["/x"] = (status, [])
        answer = front.nginx.ask("/pods/pod-a/x", [front.cookie("pod-a"), *PAGE])

        assert (answer.status, answer.body[:7]) == (status, "the pod")


def test_refusals_come_in_the_form_that_is_of_use() -> None:
    """Page, XHR, script and socket each get their own (the table is in the template's map)."""
    with front_directory() as directory, front_door(directory) as front:
        ask = front.nginx.ask
        assert "<html" in ask("/pods/pod-a/", PAGE).body
        assert "<html" in ask("/pods/pod-a/").body
        assert ask("/pods/pod-a/", [("Accept", "application/json")]).json()["code"] == "access_refused"
        assert ask("/pods/pod-a/", [("Sec-Fetch-Dest", "empty")]).json()["status"] == 403
        assert ask("/pods/pod-a/", [("Sec-Fetch-Dest", "script")]).body == "access_refused\n"
        assert ask("/pods/pod-a/", [("Accept", "application/json")], method="POST", body=b"x").status == 403


# ---- the control plane -----------------------------------------------------------------------------------


def test_the_control_plane_is_served_under_its_paths_only(front: Front) -> None:
    """/api/, health and the start page; everything else is a page that says so."""
    for path in ("/", "/healthz", "/readyz", "/api/v1/pods?limit=1"):
        assert (
            front.nginx.ask(path, [("Forwarded", "host=evil"), ("X-Forwarded-For", "6.6.6.6")]).status == 200
        )
        seen = front.api.seen[-1]
        assert seen.target == path
        assert (seen.all("forwarded"), seen.all("x-forwarded-for")) == ([], ["127.0.0.1"])
    count = len(front.api.seen)
    for path in ("/apix", "/metrics", "/internal", "/healthz/x", "/.git/config"):
        answer = front.nginx.ask(path, PAGE)
        assert (answer.status, "nothing at this address" in answer.body) == (404, True)
    assert len(front.api.seen) == count


def test_an_archive_of_any_size_is_brought_in_through_nginx(front: Front) -> None:
    """Above nginx's usual 1 MB, and handed on while it comes."""
    body = b"x" * 3_000_000

    assert front.nginx.ask("/api/v1/pods/pod-a:import?format=tar", method="POST", body=body).status == 200
    assert front.api.seen[-1].body == body


def test_a_killed_nginx_starts_again() -> None:
    """What it left behind, its socket's file too, is not in the way."""
    with front_directory() as directory, front_door(directory) as front:
        master = front.nginx.process
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        for pid in (master.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        master.wait()
        (front.nginx.settings.prefix / "nginx.pid").unlink()
        with running_nginx(front.nginx.settings) as front.nginx:
            assert front.nginx.ask("/pods/pod-a/", [front.cookie("pod-a")]).status == 200


def test_an_open_pod_does_not_need_the_control_plane() -> None:
    """LAW: with the API gone, links already given out open, pages load and sockets live; the API says 503."""
    with front_directory() as directory, front_door(directory) as front:
        gone = replace(
            front.nginx.settings,
            api_upstream=f"127.0.0.1:{free_port()}",
            https_port=free_port(),
            http_port=None,
        )
        gone = replace(gone, prefix=directory / "alone", runtime=directory / "run-alone")
        with running_nginx(gone) as nginx:
            front.nginx = nginx
            assert front.open("pod-a").status == 303
            assert nginx.ask("/pods/pod-a/", [front.cookie("pod-a")]).status == 200
            with socket_to(front, "/pods/pod-a/ws", front.cookie("pod-a")) as connection:
                connection.send("alive")
                assert connection.recv() == "alive"
            answer = nginx.ask("/api/v1/pods", [("Accept", "application/json")])
            assert (answer.status, answer.json()["code"]) == (503, "control_plane_unavailable")
