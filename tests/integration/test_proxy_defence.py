"""Attacks on the access path, in tables: what is refused, and what a pod gets to see of the rest."""

import stat
import time

import pytest
from websockets.exceptions import InvalidStatus

from api.access_token import Keyring, seal
from tests.support.front import PAGE, POD_DOMAIN, SECRET, Front, assert_refused, socket_to

# ---- what is refused -------------------------------------------------------------------------------------


def sealed_by_another(front: Front) -> str:
    """A token of another installation, under the same key id."""
    stranger = Keyring(front.keyring.current, {front.keyring.current: b"x" * 32})
    return seal(front.claims("pod-a"), stranger, "url")


REFUSED_LINKS = {
    "another pod's": lambda front: front.token("pod-b"),
    "expired": lambda front: front.token("pod-a", expires_at=int(time.time())),
    "long expired": lambda front: front.token("pod-a", expires_at=0),
    "a cookie's": lambda front: front.token("pod-a", "cookie"),
    "unknown key": lambda front: seal(front.claims("pod-a"), Keyring.new(), "url"),
    "another installation's": sealed_by_another,
    "cut": lambda front: front.token("pod-a")[:-1],
    "changed": lambda front: front.token("pod-a").replace("v1.", "v2."),
    "last bit": lambda front: (lambda t: t[:-1] + ("B" if t[-1] != "B" else "C"))(front.token("pod-a")),
    "percent-coded": lambda front: front.token("pod-a").replace(".", "%2E"),
    "followed by more": lambda front: front.token("pod-a") + "=",
    "no token": lambda _: "x",
    "very long": lambda _: "v1.k." + "A" * 6000,
    "quotes": lambda _: "%22%27%3Cscript%3E",
    "control": lambda _: "%00%0d%0aSet-Cookie:x=1",
    "foreign upstream": lambda front: front.token("pod-a", upstream="127.0.0.2:8080"),
    "metadata address": lambda front: front.token("pod-a", upstream="169.254.169.254:80"),
    "low port": lambda front: front.token("pod-a", upstream="127.0.0.1:22"),
}


@pytest.mark.parametrize("name", REFUSED_LINKS)
def test_a_link_that_is_not_good_is_refused(front: Front, name: str) -> None:
    """403 with a page that says what to do; nothing reaches a pod."""
    assert_refused(front.nginx.ask(f"/pods/pod-a/?tkn={REFUSED_LINKS[name](front)}", PAGE))
    assert front.reached() == 0


def as_cookie(text: str, pod: str = "pod-a") -> list[tuple[str, str]]:
    """One Cookie header with our cookie's name."""
    return [("Cookie", f"__Secure-codepods-{pod}={text}")]


REFUSED_COOKIES = {
    "none": lambda _: [],
    "empty": lambda _: as_cookie(""),
    "another pod's": lambda front: as_cookie(front.token("pod-b", "cookie")),
    "another pod's name": lambda front: as_cookie(front.token("pod-a", "cookie"), "pod-b"),
    "a link's": lambda front: as_cookie(front.token("pod-a", "url")),
    "expired": lambda front: as_cookie(front.token("pod-a", "cookie", expires_at=1)),
    "unknown key": lambda front: as_cookie(seal(front.claims("pod-a"), Keyring.new(), "cookie")),
    "cut": lambda front: as_cookie(front.token("pod-a", "cookie")[:-5]),
    "quoted": lambda front: as_cookie(f'"{front.token("pod-a", "cookie")}"'),
    "twice in one": lambda front: as_cookie(f"x; __Secure-codepods-pod-a={front.token('pod-a', 'cookie')}"),
    "twice": lambda front: [*as_cookie("x"), *as_cookie(front.token("pod-a", "cookie"))],
    "huge": lambda _: as_cookie("v1.k." + "A" * 12_000),
    "session forged": lambda _: [("Cookie", f"code-server-session={SECRET['pod-a']}")],
    "foreign upstream": lambda front: as_cookie(front.token("pod-a", "cookie", upstream="10.0.0.1:8080")),
    "port of ours": lambda front: as_cookie(front.token("pod-a", "cookie", upstream="127.0.0.1:443")),
}


@pytest.mark.parametrize("name", REFUSED_COOKIES)
def test_a_cookie_that_is_not_good_is_refused(front: Front, name: str) -> None:
    """Pages, XHR and sockets alike; nothing reaches a pod."""
    cookies = REFUSED_COOKIES[name](front)

    assert_refused(front.nginx.ask("/pods/pod-a/", [*cookies, *PAGE]))
    with pytest.raises(InvalidStatus) as refused, socket_to(front, "/pods/pod-a/", *cookies):
        pass
    assert refused.value.response.status_code == 403
    assert front.reached() == 0


# Asked just after a good cookie of pod-a was let in, which nginx keeps: (path, Cookie, more headers)
POISONED = {
    "another pod's path": lambda ours: ("/pods/pod-b/", ours, []),
    "another pod's name": lambda ours: ("/pods/pod-b/", ours.replace("pod-a", "pod-b"), []),
    "shorter": lambda ours: ("/pods/pod-a/", ours[:-1], []),
    "longer": lambda ours: ("/pods/pod-a/", ours + "A", []),
    "another's beside it": lambda ours: ("/pods/pod-a/", f"{ours}; {ours}", []),
    "the pod in the key": lambda ours: ("/pods/pod-b/", f"pod-a {ours}", []),
    "none": lambda _: ("/pods/pod-a/", "x=1", []),
    "the gate's own headers": lambda ours: (
        "/pods/pod-b/",
        "x=1",
        [("X-Gate-Pod", "pod-a"), ("X-Gate-Base", "/pods/pod-a/"), ("X-Gate-Cookie", ours)],
    ),
    "what the gate answers": lambda _: (
        "/pods/pod-a/",
        "x=1",
        [("X-Gate-Upstream", "127.0.0.1:1"), ("X-Accel-Expires", "9")],
    ),
}


@pytest.mark.parametrize("name", POISONED)
def test_what_was_let_in_lets_in_nothing_else(front: Front, name: str) -> None:
    """The kept yes is for one pod and these very cookies."""
    ours = front.cookie("pod-a")[1]
    assert front.nginx.ask("/pods/pod-a/", [("Cookie", ours)]).status == 200
    path, cookies, more = POISONED[name](ours)

    assert_refused(front.nginx.ask(path, [("Cookie", cookies), *more, *PAGE]))
    assert front.reached() == 1


def test_what_was_let_in_is_for_the_workers_only(front: Front) -> None:
    """The gate answers whoever reaches its socket."""
    runtime = front.nginx.settings.runtime

    assert stat.S_IMODE(runtime.stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize("cookies", [600, 1350, 1500, 6000, 15_000])
def test_long_cookies_of_applications_do_not_shut_a_pod(front: Front, cookies: int) -> None:
    """Whatever fits into nginx's buffer for one header goes to the pod, at the second time too."""
    name, ours = front.cookie("pod-a")
    theirs = f"app={'x' * (cookies - len(ours))}" if cookies > len(ours) else "app=x"

    for _ in range(2):
        assert front.nginx.ask("/pods/pod-a/", [(name, f"{ours}; {theirs}")]).status == 200
        assert front.pods["pod-a"].seen[-1].all("cookie")[0].endswith(f"; {theirs}")


PATH_TRICKS = [
    "/pods/pod-b/../pod-a/x",
    "/pods/pod-b/%2e%2e/pod-a/x",
    "/pods/pod-b/..%2fpod-a/x",
    "/pods/pod-b/.%2e/pod-a/",
    "/x/../pods/pod-a/",
    "//pods/pod-a/",
    "/pods//pod-a/",
    "/./pods/pod-a/",
    "/pods/pod%2da/",
    "/pods/%70od-a/",
    "/%70ods/pod-a/",
    "/pods%2fpod-a/",
    "/pods/pod-a%2f",
    "/pods/pod-a%00/",
    "/PODS/pod-a/",
    "/pods/POD-A/",
    "/pods/pod-a.evil/",
    "/pods/-pod-a/",
    "/pods/pod-a\\x/",
    "/pods/pod-a;/",
    "/pods/" + "a" * 64 + "/",
    "/_codepods/refused.html",
    "/_codepods_redeem",
    "/_codepods/../nginx.conf",
    "/pods/pod-a/../../_codepods/refused.html",
    "/_codepods_gate",
    "/_codepods_gate_long",
    "/_codepods_asked",
    "/_codepods_stream_asked",
    "/_codepods_socket",
    "/_codepods_opened",
]


@pytest.mark.parametrize("path", PATH_TRICKS)
def test_a_path_trick_reaches_no_pod(front: Front, path: str) -> None:
    """With a good cookie for pod-a, no other spelling of its address leads to it or to anything else."""
    answer = front.nginx.ask(path, [front.cookie("pod-a"), *PAGE])

    assert answer.status in {400, 403, 404}, answer.body
    assert front.reached() == 0
    assert front.api.seen == []


RAW_PATHS = [
    "/a%2Fb",
    "//a//b",
    "/x%2f..%2fy",
    "/%E2%82%AC?q=%2F%3f",
    "/a+b%20c",
    "/%25",
    "/a/./b/../c",
    "/?a&&b=",
]


@pytest.mark.parametrize("path", RAW_PATHS)
def test_a_pod_gets_the_path_as_it_was_sent(front: Front, path: str) -> None:
    """Nothing decoded, merged or resolved on the way."""
    assert front.nginx.ask(f"/pods/pod-a{path}", [front.cookie("pod-a")]).status == 200
    assert front.pods["pod-a"].seen[-1].target == path


# ---- what the pod gets to see ----------------------------------------------------------------------------

FORGED = [
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-Port", "1"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Forwarded-Server", "evil.example"),
    ("X-Real-IP", "6.6.6.6"),
    ("True-Client-IP", "6.6.6.6"),
    ("Forwarded", "host=evil.example"),
    ("X-Original-URL", "/evil"),
    ("X-Rewrite-URL", "/evil"),
    ("X-HTTP-Method-Override", "evil"),
    ("Proxy", "http://evil.example"),
    ("X_Forwarded_Host", "evil.example"),
    ("Connection", "Cookie, X-Forwarded-Host, keep-alive"),
    ("Upgrade", "h2c"),
    ("Cookie", "code-server-session=evil; Code-Server-Session-x=evil"),
    ("Cookie", "ok=1; code-server-session=evil; __Host-codepods=evil; __secure-codepods-pod-b=evil"),
]


def test_forged_headers_do_not_reach_the_pod(front: Front) -> None:
    """All at once: the pod sees only what nginx says, and one session."""
    assert front.nginx.ask("/pods/pod-a/", [*FORGED, front.cookie("pod-a")]).status == 200

    [seen] = front.pods["pod-a"].seen
    assert not [header for header in seen.headers if "evil" in header[1] or "6.6.6.6" in header[1]]
    assert seen.all("cookie") == [f"code-server-session={SECRET['pod-a']}; ok=1"]
    assert seen.all("upgrade") == []
    assert seen.all("connection") == ["close"]
    assert seen.all("x-forwarded-host") == [front.nginx.host]


def test_odd_bytes_in_cookies_do_no_harm(front: Front) -> None:
    """A cookie that is no text goes on to the pod as it came."""
    name, ours = front.cookie("pod-a")
    raw = (
        f"GET /pods/pod-a/ HTTP/1.1\r\nHost: {front.nginx.host}\r\n{name}: x=".encode()
        + b"\xff\xfe\xc3\x28"
        + f"; {ours}\r\nConnection: close\r\n\r\n".encode()
    )

    assert front.nginx.say(raw).startswith((b"HTTP/1.1 200", b"HTTP/1.1 403"))
    for seen in front.pods["pod-a"].seen:
        assert seen.all("cookie")[0].startswith(f"code-server-session={SECRET['pod-a']}; x=")


SMUGGLED = {
    "two lengths": "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "odd chunking": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "spaced name": "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /pods/pod-b/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "negative length": "Content-Length: -1\r\n\r\n",
    "two hosts": "Host: evil.example\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_a_request_with_two_readings_is_refused(front: Front, name: str) -> None:
    """Shapes of request smuggling end at nginx."""
    cookie = ": ".join(front.cookie("pod-a"))
    head = f"POST /pods/pod-a/ HTTP/1.1\r\nHost: {front.nginx.host}\r\n{cookie}\r\n"

    answer = front.nginx.say((head + SMUGGLED[name]).encode())

    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), answer
    assert front.reached() == 0


def test_a_pods_answer_cannot_steer_nginx_or_the_browser_beyond_the_pod(front: Front) -> None:
    """X-Accel-Redirect is not followed, and headers that speak for the whole origin do not pass."""
    front.pods["pod-a"].answers["/x"] = (
        200,
        [
            ("X-Accel-Redirect", "/api/v1/pods"),
            ("Service-Worker-Allowed", "/"),
            ("Strict-Transport-Security", "max-age=1"),
            ("Clear-Site-Data", '"*"'),
            ("Alt-Svc", 'h3="evil.example:443"'),
            ("Set-Cookie", "s=1; Path=/; Domain=localhost"),
            ("Set-Cookie", "t=1; Path=/pods/pod-b/"),
        ],
    )

    answer = front.nginx.ask("/pods/pod-a/x", [front.cookie("pod-a")])

    assert answer.body.startswith("the pod on")
    assert front.api.seen == []
    assert answer.header("Service-Worker-Allowed") == "/pods/pod-a/"
    for name in ("X-Accel-Redirect", "Strict-Transport-Security", "Clear-Site-Data", "Alt-Svc"):
        assert answer.header(name) is None
    assert answer.all("Set-Cookie") == ["s=1; Path=/pods/pod-a/; Domain=localhost", "t=1; Path=/pods/pod-a/"]


def test_a_pods_cookies_stay_on_its_host(front: Front) -> None:
    """With a host name for each pod, no cookie is for all of them."""
    front.pods["pod-a"].answers["/x"] = (200, [("Set-Cookie", f"s=1; Domain={POD_DOMAIN}")])
    host = f"pod-a.{POD_DOMAIN}"

    answer = front.nginx.ask(
        "/x", [("Cookie", f"__Host-codepods={front.token('pod-a', 'cookie')}")], host=host
    )

    assert answer.all("Set-Cookie") == [f"s=1; Domain={host}"]


def test_redirects_of_an_application_stay_within_its_pod(front: Front) -> None:
    """An absolute path in Location gets the pod's prefix."""
    front.pods["pod-a"].answers["/x"] = (302, [("Location", "/proxy/8080/login")])

    answer = front.nginx.ask("/pods/pod-a/x", [front.cookie("pod-a")])

    assert answer.header("Location") == "/pods/pod-a/proxy/8080/login"


def test_a_pod_that_asks_to_log_in_is_never_shown(front: Front) -> None:
    """No password exists: the start page leads in. An application's own login page is another thing."""
    cookie = front.cookie("pod-a")

    page = front.nginx.ask("/pods/pod-a/login", [cookie, *PAGE])
    assert (page.status, "Your pod does not answer yet" in page.body) == (503, True)
    assert_refused(front.nginx.ask("/pods/pod-a/login", PAGE))
    assert front.reached() == 0
    assert front.nginx.ask("/pods/pod-a/proxy/8080/login", [cookie]).status == 200


def test_signing_out_takes_the_cookie(front: Front) -> None:
    """The cookie goes with the attributes it was set with."""
    answer = front.nginx.ask("/pods/pod-a/logout", [front.cookie("pod-a"), *PAGE])

    assert (answer.status, answer.header("Location")) == (303, "/pods/pod-a/")
    expected = "__Secure-codepods-pod-a=; Path=/pods/pod-a/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"
    assert answer.header("Set-Cookie") == expected


def test_large_uploads_pass_through(front: Front) -> None:
    """3 MB, above nginx's usual 1 MB."""
    body = b"x" * 3_000_000

    assert front.nginx.ask("/pods/pod-a/up", [front.cookie("pod-a")], method="POST", body=body).status == 200
    assert front.pods["pod-a"].seen[-1].body == body
