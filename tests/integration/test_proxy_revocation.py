"""Throwing somebody out: requests are refused within seconds, open sockets are cut, and nobody else's are."""

import http.client
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from compose.edge import Edge
from compose.processes import wait_until
from state.revoked import Kind
from tests.support.front import PAGE, Front, assert_refused, socket_to

WAIT_S_MAX = 60.0


@pytest.fixture
def edge(front: Front) -> Edge:
    """What looks after this nginx, as the supervisor starts it."""
    settings = front.nginx.settings
    return Edge(settings.revoked, settings.prefix / "logs" / "sockets.log", settings.used)


@contextmanager
def open_sockets(front: Front, *visits: dict[str, object]) -> Iterator[list[ClientConnection]]:
    """One socket to pod-a for each visit, once nginx has told of all of them."""
    with ExitStack() as stack:
        sockets = []
        for visit in visits:
            session = secrets.token_urlsafe(16)
            cookie = front.cookie("pod-a", **{"session_id": session, **visit})
            sockets.append(stack.enter_context(socket_to(front, "/pods/pod-a/ws", cookie)))
            front.hints.of(str(visit.get("session_id", session)), "open")
        yield sockets


@contextmanager
def download(front: Front, target: str, cookie: tuple[str, str]) -> Iterator[http.client.HTTPResponse]:
    """A file of the pod that takes for ever, once its first piece is here."""
    port = front.nginx.settings.https_port
    connection = http.client.HTTPSConnection("localhost", port, context=front.nginx.tls, timeout=WAIT_S_MAX)
    with closing(connection):
        connection.request("GET", target, headers=dict([cookie]))
        response = connection.getresponse()
        assert response.status == 200
        assert response.read(5) == b"piece"
        yield response


def ends(response: http.client.HTTPResponse) -> bool:
    """Whether no more of it comes. Pieces that are on their way are read."""
    deadline = time.monotonic() + WAIT_S_MAX
    try:
        while time.monotonic() < deadline:
            if not response.read(5):
                return True
    except (OSError, http.client.HTTPException):
        return True
    return False


def is_cut(connection: ClientConnection) -> bool:
    """Whether it echoes no more."""
    try:
        connection.send("there?")
        return connection.recv(timeout=WAIT_S_MAX) != "there?"
    except (ConnectionClosed, OSError):
        return True


WHO = {
    Kind.USER: ("alice", {"user": "alice"}, {"user": "bob"}),
    Kind.SESSION: ("one", {"session_id": "one"}, {"session_id": "other"}),
    Kind.POD: ("pod-a", {}, {"issued_at": int(time.time()) + 3600}),
}


@pytest.mark.parametrize("kind", WHO)
def test_whose_sockets_are_open_is_cut_and_nobody_else(front: Front, edge: Edge, kind: Kind) -> None:
    """On real connections: two of whom it means, one of somebody else on the same pod."""
    subject, whom, other = WHO[kind]
    with open_sockets(front, whom, other, whom) as sockets:
        assert edge.look() == 0
        front.revoke(kind, subject)
        assert edge.look() >= 2

        assert [is_cut(one) for one in sockets] == [True, False, True]


@pytest.mark.parametrize(
    "target",
    [
        "/pods/pod-a/stable-1a2b/vscode-remote-resource?path=/large.bin",
        "/pods/pod-a/stable-1a2b/vscode-remote-resourc%65?path=/large.bin",
        "/pods/pod-a/proxy/5173/vscode-remote-resource",
    ],
)
def test_a_download_under_way_is_cut_and_nobody_elses(front: Front, edge: Edge, target: str) -> None:
    """A file of the pod however it is spelled, and what an application sends."""
    mine, other = (front.cookie("pod-a", user=user, session_id=user) for user in ("frank", "grace"))
    with download(front, target, mine) as cut, download(front, target, other) as left:
        edge.look()
        front.revoke(Kind.USER, "frank")
        assert wait_until(lambda: edge.look() > 0, WAIT_S_MAX)

        assert ends(cut)
        assert left.read(5) == b"piece"


def test_a_download_is_nobodys_presence(front: Front) -> None:
    """It is told to what cuts, not to who counts who is there."""
    session, last = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    with download(front, "/pods/pod-a/vscode-remote-resource", front.cookie("pod-a", session_id=session)):
        pass
    with socket_to(front, "/pods/pod-a/ws", front.cookie("pod-a", session_id=last)):
        pass
    front.hints.of(last, "close")

    assert session not in {line["session"] for line in front.hints.came}


def test_what_a_leaked_key_let_in_is_cut(front: Front, edge: Edge) -> None:
    """What another key let in stays."""
    leaked = front.keyring.current
    with open_sockets(front, {}) as before:
        front.write_keyring(front.keyring.rotated())
        with open_sockets(front, {}) as after:
            front.revoke(Kind.KEY, leaked)
            edge.look()

            assert [is_cut(one) for one in (*before, *after)] == [True, False]


def test_one_who_looks_anew_finds_the_sockets_that_were_open(front: Front) -> None:
    """What looks after the sockets may die as well: the lines are still there."""
    settings = front.nginx.settings
    with open_sockets(front, {"user": "carol"}) as [connection]:
        front.revoke(Kind.USER, "carol")
        Edge(settings.revoked, settings.prefix / "logs" / "sockets.log", settings.used).look()

        assert is_cut(connection)


def test_a_revoked_session_is_refused_and_a_fresh_link_opens(front: Front) -> None:
    """New visits at once, those that nginx has let in lately within seconds; links made later open again."""
    used, unused = front.cookie("pod-a", user="dave"), front.cookie("pod-a", user="dave")
    link = front.token("pod-a", user="dave")
    assert front.nginx.ask("/pods/pod-a/", [used]).status == 200

    front.revoke(Kind.USER, "dave")

    assert_refused(front.nginx.ask("/pods/pod-a/", [unused, *PAGE]))
    assert_refused(front.nginx.ask(f"/pods/pod-a/?tkn={link}", PAGE))
    deadline = time.monotonic() + WAIT_S_MAX
    while front.nginx.ask("/pods/pod-a/", [used]).status == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert_refused(front.nginx.ask("/pods/pod-a/", [used, *PAGE]))
    later = front.token("pod-a", user="dave", issued_at=int(time.time()) + 2)
    assert front.nginx.ask(f"/pods/pod-a/?tkn={later}", PAGE).status == 303
    assert front.nginx.ask("/pods/pod-a/", [front.cookie("pod-a", user="erin")]).status == 200


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"user": null}'])
def test_without_a_good_file_of_revocations_everything_is_closed(front: Front, content: str | None) -> None:
    """Whom it would have named is not known."""
    path = front.nginx.settings.revoked
    path.unlink()
    if content is not None:
        path.write_text(content)
        path.chmod(0o644)

    assert_refused(front.nginx.ask("/pods/pod-a/", [front.cookie("pod-a"), *PAGE]))
    assert_refused(front.nginx.ask(f"/pods/pod-a/?tkn={front.token('pod-a')}", PAGE))
