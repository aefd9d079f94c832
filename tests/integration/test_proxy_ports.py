"""Applications on ports of a pod, through a real nginx: who sees them, and what they see."""

import re

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.front import PAGE, POD_DOMAIN, SECRET, Front, assert_refused, socket_to
from tests.support.nginx import Answer
from tests.support.ports import free_port

SCRIPT = [("Sec-Fetch-Dest", "empty")]
LINK = "a-link-that-nobody-guesses"


@pytest.fixture
def names(front: Front) -> "Names":
    """Host names of pod-a and of its applications."""
    return Names(front)


class Names:
    """Asks by host name."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.https = front.nginx.settings.https_port

    def host(self, port: int | None, pod: str = "pod-a") -> str:
        """Of the pod, or of an application in it."""
        return f"{f'{port}--' if port else ''}{pod}.{POD_DOMAIN}:{self.https}"

    def ask(self, port: int | None, target: str, *headers: tuple[str, str], **options: object) -> Answer:
        """One request."""
        return self.front.nginx.ask(target, headers, host=self.host(port), **options)  # type: ignore[arg-type]

    def owner(self) -> tuple[str, str]:
        """The cookie of the pod's own host name."""
        return ("Cookie", f"__Host-codepods={self.front.token('pod-a', 'cookie')}")

    def through_the_door(self, port: int, target: str = "/") -> tuple[str, str]:
        """The cookie of an application's host name, as its user's browser gets it."""
        at_app = self.ask(port, target, *PAGE)
        at_pod = self.ask(None, _path(at_app), self.owner(), *PAGE)
        back = self.ask(port, _path(at_pod), *PAGE)
        assert (at_app.status, at_pod.status, back.status) == (302, 303, 303), (at_app, at_pod, back)
        assert back.header("Location") == target
        return ("Cookie", _cookie(back))


def _path(redirect: Answer) -> str:
    location = redirect.header("Location") or ""
    return "/" + location.split("/", 3)[3]


def _cookie(answer: Answer) -> str:
    return (answer.header("Set-Cookie") or "").partition(";")[0]


# ---- its user --------------------------------------------------------------------------------------------


def test_by_host_name_a_page_fetches_its_cookie_at_the_pods_door(front: Front, names: Names) -> None:
    """From the application to the pod and back to the same address, with a token for just that."""
    at_app = names.ask(5173, "/a?b=1&c=%2F", *PAGE)
    at_pod = names.ask(None, _path(at_app), names.owner(), *PAGE)

    assert at_app.header("Location") == f"https://{names.host(None)}/_start/port/5173?to=/a?b=1&c=%2F"
    target = at_pod.header("Location") or ""
    assert re.fullmatch(rf"https://{re.escape(names.host(5173))}/a\?tkn=v1\.[^&]+&b=1&c=%2F", target)
    token = target.partition("tkn=")[2].partition("&")[0]
    assert_refused(names.ask(None, f"/?tkn={token}", *PAGE))
    assert_refused(front.nginx.ask(f"/pods/pod-a/?tkn={token}", PAGE))
    assert names.ask(8000, f"/?tkn={token}", *PAGE).status == 403
    back = names.ask(5173, _path(at_pod), *PAGE)
    assert back.header("Location") == "/a?b=1&c=%2F"
    assert (back.header("Set-Cookie") or "").startswith("__Host-codepods=v1.")
    assert names.ask(5173, _path(at_pod), *PAGE).status == 410
    assert front.reached() == 0


def test_the_cookie_of_an_application_opens_nothing_else(front: Front, names: Names) -> None:
    """Not the IDE, not another port, by no shape; and the IDE's cookie is none of an application's."""
    cookie = names.through_the_door(5173)
    value = cookie[1].partition("=")[2]

    assert names.ask(5173, "/", cookie).status == 200
    assert_refused(names.ask(None, "/", cookie, *PAGE))
    assert names.ask(8000, "/", cookie, *SCRIPT).status == 403
    assert names.ask(5173, "/", names.owner(), *SCRIPT).status == 403
    for name in ("__Secure-codepods-pod-a", "__Secure-codepods--8000-pod-a"):
        for path in ("/pods/pod-a/", "/pods/pod-a/proxy/8000/"):
            assert_refused(front.nginx.ask(path, [("Cookie", f"{name}={value}"), *PAGE]))
    assert front.reached() == 1


@pytest.mark.parametrize("to", ["//evil.example/", "/\\evil.example/", "https://evil.example/", ""])
def test_the_door_leads_to_the_application_only(names: Names, to: str) -> None:
    """Whatever `to` says, the browser goes to the application's own host name."""
    answer = names.ask(None, f"/_start/port/5173?to={to}", names.owner(), *PAGE)

    location = answer.header("Location") or ""
    assert location.startswith(f"https://{names.host(5173)}/")
    assert not location.removeprefix(f"https://{names.host(5173)}").startswith(("//", "/\\"))


def test_the_door_is_for_the_pods_user(front: Front, names: Names) -> None:
    """Without the pod's cookie: the page that says so."""
    assert_refused(names.ask(None, "/_start/port/5173?to=/", *PAGE))


def test_an_application_is_asked_below_code_servers_path_for_it(front: Front, names: Names) -> None:
    """It hears its own local name, the public one beside it, no Origin, and none of our cookies."""
    name, ours = names.through_the_door(5173)
    origin = ("Origin", f"https://{names.host(5173)}")
    answer = names.ask(5173, "/api//x%2Fy?z=1", (name, f"{ours}; own=1"), origin, method="POST", body=b"x")

    assert answer.status == 200
    [seen] = front.pods["pod-a"].seen
    assert (seen.method, seen.target) == ("POST", "/proxy/5173/api//x%2Fy?z=1")
    assert (seen.all("host"), seen.all("origin")) == (["localhost:5173"], [])
    assert seen.all("x-forwarded-host") == [names.host(5173)]
    assert seen.all("cookie") == [f"code-server-session={SECRET['pod-a']}; own=1"]


def test_another_origin_changes_nothing_in_an_application(front: Front, names: Names) -> None:
    """Not even the pod's own page, nor another application of it."""
    cookie = names.through_the_door(5173)
    for origin in (f"https://{names.host(None)}", f"https://{names.host(8000)}", "https://evil.example"):
        assert names.ask(5173, "/", cookie, ("Origin", origin), method="POST", body=b"x").status == 403
    assert front.reached() == 0


@pytest.mark.parametrize(
    ("says", "location"),
    [
        ("/proxy/5173/login?next=/x", "/login?next=/x"),
        ("http://localhost:5173/y", "/y"),
        ("https://elsewhere.example/", "https://elsewhere.example/"),
    ],
)
def test_redirects_of_an_application_stay_at_its_name(
    front: Front, names: Names, says: str, location: str
) -> None:
    """code-server puts its path in front, and some applications their local name."""
    front.pods["pod-a"].answers["/proxy/5173/x"] = (302, [("Location", says)])

    assert names.ask(5173, "/x", names.through_the_door(5173)).header("Location") == location


def test_an_outdated_cookie_goes_through_the_door_again(front: Front, names: Names) -> None:
    """The pod was started anew: code-server asks to log in, and the browser goes to fetch a fresh cookie."""
    asks = [("Location", "./../../login?to=%2Fproxy%2F5173%2F")]
    front.pods["pod-a"].answers["/proxy/5173/"] = (302, asks)

    answer = names.ask(5173, "/", names.through_the_door(5173), *PAGE)

    assert answer.header("Location") == f"https://{names.host(None)}/_start/enter?to=_start/port/5173"


def test_an_application_of_a_pod_that_is_away(front: Front, names: Names) -> None:
    """Its user is led to the start page; scripts and strangers are told, and wake nothing."""
    away = f"127.0.0.1:{free_port()}"
    mine = front.token("pod-a", "cookie", upstream=away, scope="port:5173")
    cookie = ("Cookie", f"__Host-codepods={mine}")
    front.share("pod-a", 8010, "public", upstream=away)  # the gate's answer is kept for seconds

    page = names.ask(5173, "/", cookie, *PAGE)
    script = names.ask(5173, "/", cookie, *SCRIPT)
    stranger = names.ask(8010, "/", *PAGE)

    assert page.header("Location") == f"https://{names.host(None)}/_start/enter?to=_start/port/5173"
    assert (script.status, script.json()["code"]) == (503, "pod_unreachable")
    assert (stranger.status, "application does not answer" in stranger.body) == (503, True)
    assert front.api.seen == []


def test_by_path_an_application_sees_what_it_is_made_for(front: Front) -> None:
    """/proxy/ without our prefix, /absproxy/ with all of it; each under its local name."""
    cookie = front.cookie("pod-a")
    for path, seen_path in (
        ("/pods/pod-a/proxy/5173/x?y=1", "/proxy/5173/x?y=1"),
        ("/pods/pod-a/absproxy/5173/x?y=1", "/proxy/5173/pods/pod-a/absproxy/5173/x?y=1"),
    ):
        front.pods["pod-a"].answers[seen_path.partition("?")[0]] = (200, [("Service-Worker-Allowed", "/")])
        answer = front.nginx.ask(path, [cookie])
        assert answer.status == 200
        assert answer.header("Service-Worker-Allowed") == path.partition("x?")[0]
        assert front.pods["pod-a"].seen[-1].target == seen_path
        assert front.pods["pod-a"].seen[-1].all("host") == ["localhost:5173"]
    front.pods["pod-a"].answers["/proxy/5173/pods/pod-a/absproxy/5173/x"] = (
        302,
        [("Location", "/proxy/5173/pods/pod-a/absproxy/5173/y")],
    )
    answer = front.nginx.ask("/pods/pod-a/absproxy/5173/x", [cookie])
    assert answer.header("Location") == "/pods/pod-a/absproxy/5173/y"


def test_sockets_of_applications_pass_in_both_shapes(front: Front, names: Names) -> None:
    """Echo, with the page's own Origin; another page's is refused."""
    headers = [front.cookie("pod-a"), ("Origin", f"https://{front.nginx.host}")]
    with socket_to(front, "/pods/pod-a/proxy/5173/ws", *headers) as connection:
        connection.send("by path")
        assert connection.recv() == "by path"
    assert front.pods["pod-a"].seen[-1].target == "/proxy/5173/ws"
    with pytest.raises(InvalidStatus), socket_to(front, "/pods/pod-a/proxy/5173/ws", headers[1]):
        pass


# ---- others ----------------------------------------------------------------------------------------------


def test_without_a_word_from_its_user_a_port_is_private(front: Front, names: Names) -> None:
    """No cookie: to the door by host name, refused by path; nothing reaches the pod."""
    assert names.ask(5173, "/", *PAGE).status == 302
    assert names.ask(5173, "/", *SCRIPT).status == 403
    assert_refused(front.nginx.ask("/pods/pod-a/proxy/5173/", PAGE))
    assert front.reached() == 0


def test_a_public_port_is_open_to_everybody_and_nothing_else_is(front: Front, names: Names) -> None:
    """In both shapes; the IDE, other ports and paths that only look so stay closed."""
    front.share("pod-a", 8000, "public")

    assert names.ask(8000, "/x").status == 200
    assert front.nginx.ask("/pods/pod-a/proxy/8000/x", PAGE).status == 200
    assert [seen.target for seen in front.pods["pod-a"].seen] == ["/proxy/8000/x"] * 2
    for path in (
        "/pods/pod-a/",
        "/pods/pod-a/proxy/8001/",
        "/pods/pod-a/proxy/08000/",
        "/pods/pod-a/proxy/8000/../8001/",
        "/pods/pod-a/proxy/8000/..%2f8001/../../8001/",
        "/pods/pod-a/proxy/8001/../8000/",
        "/pods/pod-b/proxy/8000/",
        "/pods/pod-a/x/../proxy/8000/",
        "/pods/pod-a//proxy/8000/",
        "/pods/pod-a/%70roxy/8000/",
        "/pods/pod-a/proxy/%38000/",
    ):
        answer = front.nginx.ask(path, SCRIPT)
        assert answer.status == 403 or front.pods["pod-a"].seen[-1].target.startswith("/proxy/8000/"), path
    assert {seen.target.split("/")[2] for seen in front.pods["pod-a"].seen} == {"8000"}
    assert front.pods["pod-b"].seen == []
    assert names.ask(None, "/", *SCRIPT).status == 403
    assert names.ask(8001, "/", *SCRIPT).status == 403


def test_a_link_opens_its_port_until_it_is_taken_back(front: Front, names: Names) -> None:
    """It becomes a cookie of the port; it outlives a restart of the pod; private again, it is over."""
    front.share("pod-a", 5173, "link", LINK)

    opened = names.ask(5173, f"/x?tkn=l.{LINK}&y=1", *PAGE)
    cookie = ("Cookie", _cookie(opened))
    assert (opened.status, opened.header("Location")) == (303, "/x?y=1")
    assert names.ask(5173, "/x", cookie).status == 200
    assert front.pods["pod-a"].seen[-1].target == "/proxy/5173/x"
    front.share("pod-a", 5173, "link", LINK, upstream=front.pods["pod-b"].upstream)
    assert names.ask(5173, "/moved", cookie, ("Cookie", "fresh=1")).status == 200
    assert front.pods["pod-b"].seen[-1].target == "/proxy/5173/moved"
    front.unshare()
    assert names.ask(5173, "/x", cookie, ("Cookie", "later=1"), *SCRIPT).status == 403
    assert names.ask(5173, f"/?tkn=l.{LINK}", *PAGE).status == 403


def test_a_link_by_path_has_a_cookie_of_its_own(front: Front) -> None:
    """It meets neither the pod's cookie nor another port's."""
    front.share("pod-a", 5173, "link", LINK)

    opened = front.nginx.ask(f"/pods/pod-a/proxy/5173/?tkn=l.{LINK}", PAGE)
    cookie = ("Cookie", _cookie(opened))

    assert cookie[1].startswith("__Secure-codepods--5173-pod-a=v1.")
    assert "Path=/pods/pod-a/" in (opened.header("Set-Cookie") or "")
    assert front.nginx.ask("/pods/pod-a/proxy/5173/x", [cookie]).status == 200
    assert front.nginx.ask("/pods/pod-a/absproxy/5173/x", [cookie]).status == 200
    assert_refused(front.nginx.ask("/pods/pod-a/", [cookie, *PAGE]))
    assert_refused(front.nginx.ask("/pods/pod-a/proxy/8000/", [cookie, *PAGE]))
    assert "codepods" not in "".join(front.pods["pod-a"].seen[-1].all("cookie"))


@pytest.mark.parametrize("tried", ["l.", "l.wrong", f"l.{LINK}x", LINK, "v1.k.t"])
def test_what_is_not_the_link_opens_nothing(front: Front, names: Names, tried: str) -> None:
    """Cut, changed, empty, or of another form."""
    front.share("pod-a", 5173, "link", LINK)

    for answer in (
        names.ask(5173, f"/?tkn={tried}", *PAGE),
        front.nginx.ask(f"/pods/pod-a/proxy/5173/?tkn={tried}", PAGE),
        front.nginx.ask(f"/pods/pod-a/?tkn={tried}", PAGE),
    ):
        assert_refused(answer)
    assert front.reached() == 0


def test_a_file_says_nothing_of_another_port_or_pod(front: Front, names: Names) -> None:
    """Copied under another name, or not sealed for this use: the port stays closed."""
    directory = front.nginx.settings.ports_directory
    assert directory is not None
    front.share("pod-a", 8000, "public")
    text = (directory / "pod-a.8000").read_text()
    (directory / "pod-a.9000").write_text(text)
    (directory / "pod-b.8000").write_text(text)
    (directory / "pod-a.9001").write_text(front.token("pod-a", "cookie", scope="public:9001"))

    for path in ("/pods/pod-a/proxy/9000/", "/pods/pod-b/proxy/8000/", "/pods/pod-a/proxy/9001/"):
        assert_refused(front.nginx.ask(path, PAGE))
    assert front.reached() == 0
