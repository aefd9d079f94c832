"""Links that a page posts: the same rules as for those that are followed, and no token in any address."""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from state.revoked import Kind
from tests.integration.test_proxy_defence import REFUSED_LINKS
from tests.support.front import PAGE, POD_DOMAIN, SECRET, Front, assert_refused
from tests.support.nginx import Answer

FORM = "application/x-www-form-urlencoded"
# What Chromium says of a form that a page of another site posts.
ELSEWHERE = [
    ("Origin", "https://course.example"),
    ("Sec-Fetch-Site", "cross-site"),
    ("Sec-Fetch-Mode", "navigate"),
]
SCRIPT = (("Sec-Fetch-Dest", "empty"), ("Accept", "application/json"))
OPEN = "/pods/pod-a/_start/open"


@dataclass(frozen=True)
class Posted:
    """One request to where links are posted."""

    body: str
    target: str = OPEN
    method: str = "POST"
    kind: str = FORM
    by: Sequence[tuple[str, str]] = tuple(PAGE)

    def sent(self, front: Front, *more: tuple[str, str]) -> Answer:
        """How nginx answers it."""
        headers = [*([("Content-Type", self.kind)] if self.kind else []), *self.by, *ELSEWHERE, *more]
        return front.nginx.ask(self.target, headers, method=self.method, body=self.body.encode())


def post(front: Front, token: str, *more: tuple[str, str], target: str = OPEN) -> Answer:
    """A page of the platform posts a link."""
    return Posted(f"tkn={token}", target).sent(front, *more)


# ---- it opens --------------------------------------------------------------------------------------------


def test_a_posted_link_becomes_the_same_cookie_as_a_followed_one(front: Front) -> None:
    """And leads to the pod's first page, with the query that the form's address had."""
    token = front.token("pod-a")

    answer = post(front, token, target=f"{OPEN}?folder=/workspaces/x%20y&tkn=z&a=1")
    followed = front.nginx.ask(f"/pods/pod-a/?tkn={token}", PAGE)

    assert (answer.status, answer.header("Location")) == (303, "/pods/pod-a/?folder=/workspaces/x%20y&a=1")
    name, *attributes = _parts_of_cookie(answer)
    assert [name, *attributes] == _parts_of_cookie(followed)
    assert answer.header("Referrer-Policy") == "no-referrer"
    assert answer.header("Cache-Control") == "no-store"
    cookie = ("Cookie", (answer.header("Set-Cookie") or "").partition(";")[0])
    assert front.nginx.ask("/pods/pod-a/", [cookie, *PAGE]).status == 200
    assert front.pods["pod-a"].seen[-1].all("cookie") == [f"code-server-session={SECRET['pod-a']}"]


def _parts_of_cookie(answer: Answer) -> list[str]:
    """Name and attributes."""
    cookie, *attributes = (answer.header("Set-Cookie") or "").split("; ")
    return [cookie.partition("=")[0], *attributes]


def test_with_host_names_it_is_posted_to_the_pods_own(front: Front) -> None:
    """The other shape."""
    host = f"pod-a.{POD_DOMAIN}:{front.nginx.settings.https_port}"
    body = f"tkn={front.token('pod-a')}".encode()

    answer = front.nginx.ask(
        "/_start/open?folder=/w", [("Content-Type", FORM), *PAGE], method="POST", host=host, body=body
    )

    assert (answer.status, answer.header("Location")) == (303, "/?folder=/w")
    assert _parts_of_cookie(answer)[:2] == ["__Host-codepods", "Path=/"]


@pytest.mark.parametrize("kind", ["application/X-WWW-form-urlencoded", f"{FORM};charset=UTF-8"])
def test_a_form_may_say_in_other_words_that_it_is_one(front: Front, kind: str) -> None:
    """Case and parameters of a content type mean nothing."""
    sent = Posted(f"tkn={front.token('pod-a')}", kind=kind)

    assert sent.sent(front).status == 303


# ---- how often -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["posted", "followed"])
def test_a_link_for_once_opens_once_whichever_way(front: Front, first: str) -> None:
    """Its mark is the token's, not the way's."""
    token = front.token("pod-a", reuse="once")
    ways: list[Callable[[], Answer]] = [
        lambda: post(front, token),
        lambda: front.nginx.ask(f"/pods/pod-a/?tkn={token}", PAGE),
    ]
    if first == "followed":
        ways.reverse()

    assert [way().status for way in (*ways, ways[0])] == [303, 410, 410]


def test_a_link_for_one_browser_may_be_posted_again_from_the_same_site(front: Front) -> None:
    """Its cookie says so, which browsers keep back from what another site posts."""
    token = front.token("pod-a", reuse="browser")
    name = post(front, token).header("Set-Cookie") or ""

    assert post(front, token, ("Cookie", name.partition(";")[0])).status == 303
    again = post(front, token)
    assert (again.status, "This link has been used" in again.body) == (410, True)


# ---- what is refused -------------------------------------------------------------------------------------

REFUSED_POSTS: dict[str, Callable[[Front], Posted]] = {
    **{
        f"a link that is {name}": lambda f, link=link: Posted(f"tkn={link(f)}")
        for name, link in REFUSED_LINKS.items()
    },
    "no body": lambda _: Posted(""),
    "another field": lambda f: Posted(f"token={f.token('pod-a')}"),
    "two fields": lambda f: Posted(f"tkn={f.token('pod-a')}&folder=/w"),
    "a field before": lambda f: Posted(f"folder=/w&tkn={f.token('pod-a')}"),
    "the field twice": lambda f: Posted("&".join([f"tkn={f.token('pod-a')}"] * 2)),
    "the field's name encoded": lambda f: Posted(f"%74kn={f.token('pod-a')}"),
    "a line more": lambda f: Posted(f"tkn={f.token('pod-a')}\r\n"),
    "too large": lambda f: Posted(f"tkn={f.token('pod-a')}&x={'A' * 5000}"),
    "no content type": lambda f: Posted(f"tkn={f.token('pod-a')}", kind=""),
    "plain text": lambda f: Posted(f"tkn={f.token('pod-a')}", kind="text/plain"),
    "a form in parts": lambda f: Posted(
        f'--b\r\nContent-Disposition: form-data; name="tkn"\r\n\r\n{f.token("pod-a")}\r\n--b--\r\n',
        kind="multipart/form-data; boundary=b",
    ),
    "JSON": lambda f: Posted(f'{{"tkn": "{f.token("pod-a")}"}}', kind="application/json"),
    "a content type that only begins so": lambda f: Posted(f"tkn={f.token('pod-a')}", kind=f"{FORM}x"),
    "token in the address": lambda f: Posted("", f"{OPEN}?tkn={f.token('pod-a')}"),
    "followed there": lambda f: Posted("", f"{OPEN}?tkn={f.token('pod-a')}", "GET"),
    **{
        f"{method} with a good form": lambda f, method=method: Posted(
            f"tkn={f.token('pod-a')}", method=method
        )
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")
    },
    "to a page of the pod": lambda f: Posted(f"tkn={f.token('pod-a')}", "/pods/pod-a/"),
    "below it": lambda f: Posted(f"tkn={f.token('pod-a')}", f"{OPEN}/"),
    "another spelling": lambda f: Posted(f"tkn={f.token('pod-a')}", "/pods/pod-a/_start/%6fpen"),
    "by another pod's path": lambda f: Posted(f"tkn={f.token('pod-a')}", "/pods/pod-b/../pod-a/_start/open"),
    "two slashes": lambda f: Posted(f"tkn={f.token('pod-a')}", "//pods/pod-a/_start/open"),
    "by a script": lambda f: Posted(f"tkn={f.token('pod-a')}", by=SCRIPT),
}


@pytest.mark.parametrize("name", REFUSED_POSTS)
def test_what_is_posted_otherwise_is_refused(front: Front, name: str) -> None:
    """403, in the form that whoever asks can read; nothing reaches a pod, nor the control plane."""
    posted = REFUSED_POSTS[name](front)

    answer = posted.sent(front)

    if posted.by == SCRIPT:
        assert (answer.status, answer.json()["code"]) == (403, "access_refused")
    elif posted.method == "HEAD":
        assert (answer.status, answer.all("Set-Cookie")) == (403, [])
    else:
        assert_refused(answer)
    assert front.reached() == 0
    assert front.api.seen == []


def test_a_body_that_breaks_off_opens_nothing(front: Front) -> None:
    """The client says how long its form is, and goes before it is whole."""
    token = front.token("pod-a", reuse="once")
    head = f"POST {OPEN} HTTP/1.1\r\nHost: {front.nginx.host}\r\nContent-Type: {FORM}\r\n"
    whole = f"tkn={token}"
    with (
        socket.create_connection(("127.0.0.1", front.nginx.settings.https_port), timeout=20) as plain,
        front.nginx.tls.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(f"{head}Content-Length: {len(whole)}\r\n\r\n{whole[:-1]}".encode())
        with contextlib.suppress(OSError):
            secure.unwrap()

    assert post(front, token).status == 303


def test_a_revoked_link_cannot_be_posted(front: Front) -> None:
    """As it cannot be followed."""
    token = front.token("pod-a", session_id="stolen", issued_at=int(time.time()) - 5)

    front.revoke(Kind.SESSION, "stolen")

    assert_refused(post(front, token))


def test_a_posted_token_is_in_no_log_and_not_on_disk(front: Front) -> None:
    """Good, refused, too large, by another method: nginx writes down nothing, and the pod hears nothing."""
    good, bad = front.token("pod-a"), front.token("pod-b")
    for body in (f"tkn={good}", f"tkn={bad}", f"tkn={good}&x={'A' * 4000}", f"x={'A' * 3000}&tkn={good}"):
        answer = Posted(body).sent(front, ("Referer", "https://course.example/"))
        assert good not in str(answer)
    Posted(f"tkn={good}", method="PUT").sent(front)
    front.nginx.ask("/pods/pod-a/last", [front.cookie("pod-a")])

    told = front.nginx.access_log() + front.nginx.error_log()
    told += "".join(f"{seen.target} {seen.headers} {seen.body!r}" for seen in front.pods["pod-a"].seen)
    assert [token for token in (good, bad) if token[-40:] in told] == []
    assert '"path":"/pods/pod-a/_start/open","status":303' in told
    assert '"refusal":"form"' in told
    directories = (front.nginx.settings.prefix, front.nginx.settings.runtime)
    files = [file for directory in directories for file in directory.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert not [file for file in files if good[-40:].encode() in file.read_bytes()]


def test_the_start_page_posts_nothing_to_another_pod(front: Front) -> None:
    """With the cookie of another pod, what is posted counts: its own pod's token, and that pod's cookie."""
    answer = post(front, front.token("pod-a"), front.cookie("pod-b"))

    assert (answer.status, _parts_of_cookie(answer)[0]) == (303, "__Secure-codepods-pod-a")
    assert_refused(post(front, front.token("pod-b"), front.cookie("pod-b")))
