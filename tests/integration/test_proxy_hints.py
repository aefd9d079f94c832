"""What nginx tells of sockets: a line when one opens, a line when it ends, and nothing of anything else."""

import secrets

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.front import Front, socket_to
from tests.support.ports import free_port


def test_a_sockets_opening_and_end_are_told(front: Front) -> None:
    """The opening while it is open, the end with the same connection, and the worker that served it."""
    session = secrets.token_urlsafe(16)
    with socket_to(front, "/pods/pod-a/ws", front.cookie("pod-a", session_id=session)):
        opened = front.hints.of(session, "open")
        assert not [line for line in front.hints.came if line["event"] == "close"]
    closed = front.hints.of(session, "close")

    assert {**opened, "connection": "", "worker": 0} == {
        "event": "open",
        "pod": "pod-a",
        "session": session,
        "connection": "",
        "worker": 0,
        "seconds": 0,
    }
    assert (opened["connection"], opened["worker"]) == (closed["connection"], closed["worker"])
    assert len(opened["connection"]) == 32
    assert closed["seconds"] >= 0


def test_a_socket_that_found_no_pod_is_told_as_ended(front: Front) -> None:
    """Else somebody would be there for ever who never was."""
    session = secrets.token_urlsafe(16)
    cookie = front.cookie("pod-a", session_id=session, upstream=f"127.0.0.1:{free_port()}")

    with pytest.raises(InvalidStatus), socket_to(front, "/pods/pod-a/ws", cookie):
        pass

    assert front.hints.of(session, "open")["connection"] == front.hints.of(session, "close")["connection"]


def test_pages_and_refused_sockets_are_not_told(front: Front) -> None:
    """Only who was let in to a pod, and only by a socket, is there."""
    page, refused, last = (secrets.token_urlsafe(16) for _ in range(3))
    front.nginx.ask("/pods/pod-a/", [front.cookie("pod-a", session_id=page)])
    with (
        pytest.raises(InvalidStatus),
        socket_to(front, "/pods/pod-a/ws", front.cookie("pod-a", session_id=refused, expires_at=1)),
    ):
        pass
    with socket_to(front, "/pods/pod-a/ws", front.cookie("pod-a", session_id=last)):
        pass
    front.hints.of(last, "close")

    assert not [line for line in front.hints.came if line["session"] in {page, refused, ""}]
