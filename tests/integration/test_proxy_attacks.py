"""Every attack of every table in one go, counted: all refused, none reached a pod, seen from the pod."""

import time
from collections.abc import Callable, Iterator

from state.revoked import Kind
from tests.integration.test_proxy import ORIGINS, status_of
from tests.integration.test_proxy_defence import (
    PATH_TRICKS,
    POISONED,
    REFUSED_COOKIES,
    REFUSED_LINKS,
    SMUGGLED,
)
from tests.integration.test_proxy_posted import REFUSED_POSTS
from tests.support.front import POD_DOMAIN, Front

REFUSALS = frozenset({400, 401, 403, 404, 405, 410, 421, 429, 494, 501})

# No answer at all: nginx waits for more, or closes without a word. None of these attacks is met so.
SILENCE = 0

SMUGGLING_HEAD = "POST /pods/pod-a/ HTTP/1.1\r\nHost: HOST\r\nCOOKIE\r\n"
# Whole requests, as they go over the wire. COOKIE is a good one of pod-a; the end of the head is added.
REST = " HTTP/1.1\r\nHost: HOST\r\nCOOKIE"
RAW = {
    "absolute address of another pod": f"GET https://localhost/pods/pod-b/{REST}",
    "absolute address of another host": f"GET https://pod-b.DOMAIN/{REST}",
    "host of another pod": "GET / HTTP/1.1\r\nHost: pod-b.DOMAIN\r\nCOOKIE",
    "no host": "GET /pods/pod-b/ HTTP/1.1\r\nCOOKIE",
    "host with a path": "GET / HTTP/1.1\r\nHost: HOST/pods/pod-a\r\nCOOKIE",
    "space in the address": f"GET /pods/pod-b/ /pods/pod-a/{REST}",
    "line feeds alone": "GET /pods/pod-b/ HTTP/1.1\nHost: HOST\nCOOKIE\nX: y",
    "folded cookie": "GET /pods/pod-b/ HTTP/1.1\r\nHost: HOST\r\nX: y\r\n COOKIE",
    "connect": f"CONNECT pod-a:443{REST}",
    "trace": f"TRACE /pods/pod-a/{REST}",
    "header too large": f"GET /pods/pod-a/{REST}; x={'A' * 20_000}",
    "cookies too large": f"GET /pods/pod-a/{REST}" + f"\r\nCookie: x={'A' * 15_000}" * 3,
    "chunks that lie": f"POST /pods/pod-b/{REST}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nGET /pods/pod-a/",
    "token by another name": f"GET /pods/pod-a/?%74%6bn=x{REST}",
    "empty token": f"GET /pods/pod-a/?a=1&TKN={REST}",
}

Attack = Callable[[Front], int]


def socket_status(front: Front, headers: list[tuple[str, str]]) -> int:
    """How a socket with these headers is answered."""
    asked = [
        ("Host", front.nginx.host),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        *headers,
    ]
    lines = "".join(f"\r\n{name}: {value}" for name, value in asked)
    answer = front.nginx.say(f"GET /pods/pod-a/ HTTP/1.1{lines}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer.split(b" ", 2)[1])


def raw_status(front: Front, request: str) -> int:
    """How these bytes are answered; `SILENCE` when the connection is closed, or waits, without a word."""
    name, cookie = front.cookie("pod-a")
    whole = request.replace("HOST", front.nginx.host).replace("DOMAIN", POD_DOMAIN)
    answer = front.nginx.say(whole.replace("COOKIE", f"{name}: {cookie}").encode())
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else SILENCE


def after_revocation(front: Front, kind: Kind, subject: str, use: str) -> int:
    """A replay of what was good until a moment ago."""
    link, cookie = front.token("pod-a", session_id="stolen"), front.cookie("pod-a", session_id="stolen")
    front.revoke(kind, subject)
    if use == "link":
        return front.nginx.ask(f"/pods/pod-a/?tkn={link}").status
    return front.nginx.ask("/pods/pod-a/", [cookie]).status


def after_a_good_one(front: Front, poisoned: Callable[[str], tuple[str, str, list[tuple[str, str]]]]) -> int:
    """Asked while nginx still keeps that somebody was let in."""
    ours = front.cookie("pod-a")[1]
    front.nginx.ask("/pods/pod-a/", [("Cookie", ours)])
    front.pods["pod-a"].seen.clear()
    path, cookies, more = poisoned(ours)
    return front.nginx.ask(path, [("Cookie", cookies), *more]).status


def attacks() -> Iterator[tuple[str, Attack]]:
    """All of them, by table."""
    yield from attacks_by_address()
    for name, cookies in REFUSED_COOKIES.items():
        yield f"cookie: {name}", lambda f, c=cookies: f.nginx.ask("/pods/pod-a/", c(f)).status
        yield f"socket: {name}", lambda f, c=cookies: socket_status(f, c(f))
    for name, poisoned in POISONED.items():
        yield f"poisoned: {name}", lambda f, p=poisoned: after_a_good_one(f, p)
    for method, origin, site, let_in in ORIGINS:
        if not let_in:
            yield f"origin: {method} {origin}", lambda f, a=(method, origin, site): from_page(f, *a)
    for kind, subject in ((Kind.USER, "alice"), (Kind.POD, "pod-a"), (Kind.SESSION, "stolen")):
        for use in ("link", "cookie"):
            yield f"revoked {kind}: {use}", lambda f, a=(kind, subject, use): after_revocation(f, *a)


def attacks_by_address() -> Iterator[tuple[str, Attack]]:
    """Links, paths and whole requests."""
    for name, link in REFUSED_LINKS.items():
        yield f"link: {name}", lambda f, link=link: f.nginx.ask(f"/pods/pod-a/?tkn={link(f)}").status
    for name, posted in REFUSED_POSTS.items():
        yield f"posted: {name}", lambda f, posted=posted: posted(f).sent(f).status
    for path in PATH_TRICKS:
        yield f"path: {path}", lambda f, path=path: f.nginx.ask(path, [f.cookie("pod-a")]).status
    for name, body in SMUGGLED.items():
        yield f"smuggled: {name}", lambda f, body=body: raw_status(f, SMUGGLING_HEAD + body)
    for name, request in RAW.items():
        yield f"raw: {name}", lambda f, request=request: raw_status(f, f"{request}\r\n\r\n")


def from_page(front: Front, method: str, origin: str | None, site: str | None) -> int:
    """What a page of this origin gets with the cookie of pod-a."""
    headers = [front.cookie("pod-a"), ("Origin", (origin or "").replace("HOST", front.nginx.host))]
    return status_of(front, method, [*headers, *([("Sec-Fetch-Site", site)] if site else [])])


def assert_all_refused(front: Front) -> None:
    """One count of all tables. Afterwards a good cookie still opens: they were not refused with everybody."""
    went_wrong = []
    count = 0
    for name, attack in attacks():
        count += 1
        status = attack(front)
        if status not in REFUSALS or front.reached():
            went_wrong.append((name, status, front.reached()))
            for pod in front.pods.values():
                pod.seen.clear()

    print(f"{count} attacks: {count - len(went_wrong)} refused, {len(went_wrong)} let in or seen by a pod")
    assert went_wrong == []
    assert count > 100
    good = front.cookie("pod-b", user="bob", issued_at=int(time.time()) + 2)
    assert front.nginx.ask("/pods/pod-b/", [good]).status == 200


def test_no_attack_reaches_a_pod(front: Front) -> None:
    """By the way in which this machine's nginx keeps the gate's yes."""
    assert_all_refused(front)
