"""The start page through a real nginx: who gets one, what it may ask, and what a thousand tabs cost."""

import http.client
import re
import time
from collections import Counter

import pytest

from api.access_token import open_token
from tests.support.front import PAGE, POD_DOMAIN, Front, assert_refused
from tests.support.nginx import Answer
from tests.support.ports import free_port

TABS = 1000
SCRIPT = [("Sec-Fetch-Dest", "empty"), ("Sec-Fetch-Mode", "cors")]
FRAME = [("Sec-Fetch-Dest", "iframe"), ("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")]
SOCKET = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
SOCKET += [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]


def _asleep(front: Front, pod: str = "pod-a") -> tuple[str, str]:
    """The cookie of a pod that nobody listens for."""
    return front.cookie(pod, upstream=f"127.0.0.1:{free_port()}")


def _told(page: Answer, name: str) -> str:
    """What the page was given."""
    found = re.search(rf'data-{name}="([^"]*)"', page.body)
    assert found, page.body
    return found[1]


def test_a_visitor_gets_a_page_with_a_token_of_its_own_use(front: Front) -> None:
    """It opens as a visit's, for this pod and session, soon over; as a link or a cookie it opens nothing."""
    page = front.nginx.ask("/pods/pod-a/?folder=/workspaces", [_asleep(front), *PAGE])
    token, now = _told(page, "token"), int(time.time())

    visit = open_token(token, front.keyring, "visit", "pod-a", now)

    assert (page.status, _told(page, "base"), _told(page, "auto")) == (503, "/pods/pod-a/", "yes")
    assert (visit.session_id, visit.user) == ("session-of-pod-a", "alice")
    assert visit.expires_at <= now + 60  # the cookie's own end
    assert_refused(front.nginx.ask(f"/pods/pod-a/?tkn={token}", PAGE))
    assert_refused(front.nginx.ask("/pods/pod-a/", [("Cookie", f"__Secure-codepods-pod-a={token}"), *PAGE]))
    assert "SECRET" not in page.body
    assert page.header("Referrer-Policy") == "no-referrer"
    assert "frame-ancestors 'none'" in (page.header("Content-Security-Policy") or "")


def test_a_frame_gets_no_token(front: Front) -> None:
    """Only a page that somebody visits may wake a pod, not one within another."""
    frame = front.nginx.ask("/pods/pod-a/", [_asleep(front), *FRAME])

    assert (frame.status, _told(frame, "token")) == (503, "")


def test_an_old_browser_gets_a_page_that_waits_for_a_click(front: Front) -> None:
    """Without Fetch Metadata nobody knows whether it is a visit: the page wakes nothing by itself."""
    page = front.nginx.ask("/pods/pod-a/", [_asleep(front), ("Accept", "text/html")])

    assert (_told(page, "auto"), len(_told(page, "token")) > 100) == ("", True)


def test_the_page_asks_the_control_plane_below_its_pod(front: Front) -> None:
    """In both shapes: status and waking reach the API with the page's token, and without a cookie."""
    host = f"pod-a.{POD_DOMAIN}:{front.nginx.settings.https_port}"
    bearer = ("Authorization", "Bearer v1.k.t")
    for base, name in (("/pods/pod-a/", None), ("/", host)):
        front.nginx.ask(f"{base}_start/visit", [bearer, _asleep(front), *SCRIPT], host=name)
        front.nginx.ask(f"{base}_start/wake?again=true", [bearer, *SCRIPT], method="POST", host=name)

    assert [(seen.method, seen.target) for seen in front.api.seen] == [
        ("GET", "/api/v1/pods/pod-a:visit"),
        ("POST", "/api/v1/pods/pod-a:wake?again=true"),
    ] * 2
    assert all(seen.all("authorization") == ["Bearer v1.k.t"] for seen in front.api.seen)
    assert all(seen.all("cookie") == [] for seen in front.api.seen)


@pytest.mark.parametrize("call", ["", "explain", "desired-state", "visit/x", "open"])
def test_nothing_else_of_the_control_plane_is_below_a_pod(front: Front, call: str) -> None:
    """What is not one of the three calls is the pod's own path, and needs its cookie."""
    assert_refused(front.nginx.ask(f"/pods/pod-a/_start/{call}", PAGE))
    assert front.api.seen == []


def test_the_way_in_is_shown_to_the_cookie_only(front: Front) -> None:
    """nginx asks for the visitor, and makes the answer's token the cookie; scripts are refused."""
    fresh = front.token("pod-a", session_id="fresh")
    way_in = (303, [("Location", "../x"), ("Codepods-Token", fresh)])
    front.api.answers["/api/v1/pods/pod-a:enter"] = way_in

    answer = front.nginx.ask("/pods/pod-a/_start/enter?to=x", [_asleep(front), *PAGE])

    cookie = (answer.header("Set-Cookie") or "").partition("=")[2].partition(";")[0]
    assert (answer.status, answer.header("Location")) == (303, "../x")
    assert open_token(cookie, front.keyring, "cookie", "pod-a", int(time.time())).session_id == "fresh"
    assert fresh not in str(answer)
    [seen] = front.api.seen
    assert seen.target == "/api/v1/pods/pod-a:enter?to=x"
    bearer = seen.all("authorization")[0].removeprefix("Bearer ")
    assert open_token(bearer, front.keyring, "visit", "pod-a", int(time.time())).session_id
    assert seen.all("cookie") == []
    for headers in ([*PAGE], [_asleep(front), *SCRIPT], [_asleep(front, "pod-b"), *PAGE]):
        assert front.nginx.ask("/pods/pod-a/_start/enter", headers).status == 403
    assert len(front.api.seen) == 1


def test_a_way_in_that_does_not_open_gives_no_cookie(front: Front) -> None:
    """A token of another pod, or one that is a cookie already, beside the control plane's answer."""
    for token in (front.token("pod-b"), front.token("pod-a", "cookie"), "x", ""):
        way_in = (303, [("Location", "../x"), ("Codepods-Token", token)])
        front.api.answers["/api/v1/pods/pod-a:enter"] = way_in

        answer = front.nginx.ask("/pods/pod-a/_start/enter", [_asleep(front), *PAGE])

        assert (answer.status, answer.all("Set-Cookie"), answer.all("Codepods-Token")) == (303, [], [])


@pytest.mark.parametrize(("status", "shown"), [(503, 503), (401, 403), (404, 403), (410, 403)])
def test_the_way_in_leads_back_to_a_page(front: Front, status: int, shown: int) -> None:
    """Not running yet: the start page again, with a token. Not known any more: the page that says so."""
    front.api.answers["/api/v1/pods/pod-a:enter"] = (status, [])

    page = front.nginx.ask("/pods/pod-a/_start/enter", [_asleep(front), *PAGE])

    assert page.status == shown
    assert ("data-token" in page.body) == (shown == 503)
    assert "the pod on" not in page.body


def _hammer(front: Front, target: str, headers: list[tuple[str, str]], times: int) -> Counter[int]:
    """The same request over one connection after the other is answered, as tabs do that try again."""
    statuses: Counter[int] = Counter()
    port, tls = front.nginx.settings.https_port, front.nginx.tls
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=20)
    for _ in range(times):
        connection.request("GET", target, headers={"Host": front.nginx.host, **dict(headers)})
        response = connection.getresponse()
        response.read()
        statuses[response.status] += 1
    connection.close()
    return statuses


def test_a_thousand_tabs_of_a_sleeping_pod_ask_nobody(front: Front) -> None:
    """Their sockets and scripts are answered by nginx alone: not one call reaches the control plane."""
    cookie = _asleep(front)

    sockets = _hammer(front, "/pods/pod-a/?reconnectionToken=x", [cookie, *SOCKET], TABS)
    scripts = _hammer(front, "/pods/pod-a/_static/x.json", [cookie, *SCRIPT], TABS)
    pages = _hammer(front, "/pods/pod-a/", [cookie, *PAGE], 100)

    assert sockets == scripts == {503: TABS}
    assert set(pages) <= {503, 429}  # beyond the burst, asking too often is said instead
    assert pages[503]
    assert front.api.seen == []
    assert front.reached() == 0


def test_an_address_that_can_be_kept_leads_to_the_pod(front: Front) -> None:
    """It holds no token: who has the pod's cookie goes on from there, others are told what to do."""
    port = front.nginx.settings.https_port
    for target in ("/open/pod-a", "/open/pod-a/"):
        answer = front.nginx.ask(target, PAGE)
        assert (answer.status, answer.header("Location")) == (303, f"https://pod-a.{POD_DOMAIN}:{port}/")
    assert_refused(front.nginx.ask("/", PAGE, host=f"pod-a.{POD_DOMAIN}:{port}"))
