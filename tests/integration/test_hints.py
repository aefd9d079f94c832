"""nginx's hints: they make nodes look sooner, decide nothing, and may all be lost."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.edge import Hints, listen, pod_of
from reconciler.outage import Outage
from state import presence
from state.database import Database
from tests.integration.test_policies import Scene, scene

__all__ = ["scene"]

PATIENCE_S = 60
laws = settings(deadline=None)


def line(pod: str, event: str = "close") -> bytes:
    """As nginx sends it."""
    said = {"event": event, "pod": pod, "session": "s", "connection": "0" * 32, "worker": 7, "seconds": 1.5}
    return b"<190>Nov 21 11:20:00 codepods: " + json.dumps(said).encode()


@contextmanager
def listening(db: Database) -> Iterator[Hints]:
    """The listener, on a free port."""
    hints = Hints(db, listen("127.0.0.1", 0), Outage("database"))
    hints.start()
    try:
        yield hints
    finally:
        hints.stop()


def send(hints: Hints, *lines: bytes) -> None:
    """By UDP, and wait until all are counted."""
    before = hints.counts["taken"] + hints.counts["malformed"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for one in lines:
            out.sendto(one, ("127.0.0.1", hints.port))
    deadline = time.monotonic() + PATIENCE_S
    while hints.counts["taken"] + hints.counts["malformed"] < before + len(lines):
        assert time.monotonic() < deadline, hints.counts
        time.sleep(0.01)


def test_a_hint_has_the_node_look_and_wishes_nothing(scene: Scene) -> None:
    """The pod's node is asked to look; desired rows stay as they are."""
    scene.say(connections=2, active_age_s=1)
    before = scene.row
    with listening(scene.control.db) as hints:
        send(hints, line(scene.pod_id))
        deadline = time.monotonic() + PATIENCE_S
        while not presence.looks_asked(scene.control.db):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    assert presence.looks_asked(scene.control.db) == {"node-1": frozenset({scene.pod_id})}
    assert scene.row == before


def test_a_stopped_pod_is_not_woken_by_a_tab_that_reconnects(scene: Scene) -> None:
    """A thousand openings of sockets to a pod that is put away write no wish."""
    from state.model import Desired

    scene.control.want(scene.pod_id, Desired.STOPPED)
    scene.control.settle(scene.node)
    before = scene.row
    with listening(scene.control.db) as hints:
        send(hints, *[line(scene.pod_id, "open")] * 1000)
    scene.look()

    assert scene.row == before
    assert scene.row["desired_state"] == "stopped"


def test_what_is_no_line_of_ours_is_counted_and_dropped(db: Database) -> None:
    """Cut, foreign, huge, nested without end, of pods that cannot be: the next good one is heard."""
    bad = [
        b"",
        b"<190>hello",
        b"{",
        line("p-aaaaaaaaaaaa")[:-9],
        line("../../etc"),
        line("p-aaaaaaaaaaaa", "explode"),
        b'{"event":"open","pod":["p-aaaaaaaaaaaa"]}',
        b'{"a":' * 700,
        b"\xff\xfe{}",
        line("p-aaaaaaaaaaaa") + b" " * 5000,
    ]
    with listening(db) as hints:
        send(hints, *bad)
        send(hints, line("p-aaaaaaaaaaaa"))

        assert hints.counts["malformed"] == len(bad)
        assert hints.counts["taken"] == 1


def test_a_class_that_closes_its_tabs_together_is_heard_whole(db: Database) -> None:
    """A burst of 4,500 lines, three times what overflows the default buffer, is taken without a loss."""
    with listening(db) as hints:
        send(hints, *[line("p-aaaaaaaaaaaa")] * 4500)

        assert hints.counts["taken"] == 4500


@laws
@given(st.binary(max_size=200))
def test_any_bytes_are_a_pod_or_nothing(junk: bytes) -> None:
    """Total: nothing that arrives at the port can do more than name a pod."""
    assert pod_of(junk) is None or pod_of(junk).startswith("p-")  # type: ignore[union-attr]


def test_without_any_hint_the_policies_find_the_same(scene: Scene) -> None:
    """All lines lost (LAW 1): the node's own looks lead to the same wish."""
    scene.say(connections=2, active_age_s=1)
    scene.say(connections=0, gone_for_s=301)

    assert scene.look().wishes == 1


def test_a_taken_port_is_said_and_no_reason_to_stop() -> None:
    """Two listeners cannot share a port; the second is told so at once."""
    first = listen("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])
    first.close()
