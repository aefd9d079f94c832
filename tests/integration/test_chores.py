"""Chores on a real database.

One open per subject, one node at a time, late results dropped, lost nodes replaced.
"""

from datetime import timedelta
from typing import Any

import pytest

from reconciler.chores import attend_chores
from state import chores
from state.alarms import open_alarms
from state.chore_wire import ChoreDone, ChoreFailed, ChoreHandle, ChoreProgress, ChoresDown, ChoresUp
from state.chores import FAILURES_MAX, Applies
from state.model import ChoreState, Limits
from tests.support.control import Control

KIND = "scrub"


def make(control: Control, subject: str = "a-1", **more: Any) -> tuple[str, bool]:
    """A chore, in a transaction of its own."""
    with control.db.transaction() as connection:
        return chores.make_chore(connection, KIND, subject, {"of": subject}, made_by="test", **more)


def asks(*held: ChoreHandle, wanted: int = 1, kinds: tuple[str, ...] = (KIND,)) -> ChoresUp:
    """What a node says that has `held` and would take `wanted` more."""
    return ChoresUp(kinds=kinds, wanted=wanted, held=held)


def news(control: Control, node: str, said: ChoresUp) -> ChoresDown:
    """What the gateway tells it."""
    return chores.news(control.db, node, said)


def answer(control: Control, node: str, *results: ChoreDone | ChoreFailed, **applies: Applies) -> None:
    """A node's results, taken in."""
    said = ChoresUp(kinds=(KIND,), results=results)
    kept = chores.take_in(control.db, node, said, applies, Limits())
    assert kept == tuple(result.chore for result in results)


def due(control: Control) -> None:
    """As if its back-off were over."""
    control.rows("UPDATE chore SET not_before = now() WHERE state = 'waiting'")


@pytest.fixture
def plane(control: Control) -> Control:
    """With two nodes that were heard of just now."""
    control.join("node-1")
    control.join("node-2")
    return control


def test_one_open_chore_per_kind_and_subject(plane: Control) -> None:
    """Asking again while one is open finds it; once it is over there may be another."""
    first, made = make(plane)
    assert (made, make(plane)) == (True, (first, False))
    (chore,) = news(plane, "node-1", asks()).given
    answer(plane, "node-1", ChoreDone(chore=chore.handle, result={"well": True}))

    status = chores.get_chore(plane.db, first)
    assert status is not None
    assert (status.state, status.result) == (ChoreState.DONE, {"well": True})
    assert make(plane)[0] != first


def test_a_chore_is_with_one_node_at_a_time_and_delivered_again_until_it_is_held(plane: Control) -> None:
    """A reply that was lost is repeated.

    Nobody else is given the chore meanwhile, nor more than is wanted.
    """
    make(plane)
    make(plane, "a-2")
    (chore,) = news(plane, "node-1", asks()).given
    assert news(plane, "node-1", asks(wanted=0)).given == (chore.model_copy(update={"age_s": _age(plane)}),)
    assert news(plane, "node-1", asks(chore.handle, wanted=0)).given == ()
    (other,) = news(plane, "node-2", asks(wanted=5)).given
    assert other.id != chore.id


def _age(control: Control) -> Any:
    """Equal to any age: it grows between two looks."""

    class AnyAge(float):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, float)

        def __hash__(self) -> int:
            return 0

    return AnyAge(0)


def test_nodes_are_given_only_the_kinds_that_they_know(plane: Control) -> None:
    """An agent of an older version, which names other kinds or none, gets nothing that it could not read."""
    make(plane)
    assert news(plane, "node-1", asks(kinds=("other",))).given == ()
    assert not news(plane, "node-1", ChoresUp())
    assert len(news(plane, "node-1", asks(kinds=("other", KIND))).given) == 1


def test_a_chore_for_one_node_is_given_to_no_other(plane: Control) -> None:
    """Some work can only be done where something is."""
    make(plane, only_node_id="node-2")
    assert news(plane, "node-1", asks()).given == ()
    assert len(news(plane, "node-2", asks()).given) == 1


def fall_silent(plane: Control, chore_id: str) -> None:
    """Its node has not been heard for long, and somebody looks."""
    plane.rows("UPDATE node_lease SET last_seen_at = now() - interval '5 min' WHERE node_id = 'node-1'")
    plane.rows("UPDATE chore SET given_at = now() - interval '5 min' WHERE id = %s::uuid", chore_id)
    long_leading = type(plane.leading)(plane.leading.leadership, plane.leading.since - timedelta(hours=1))
    attend_chores(plane.db, plane.limits, long_leading)


def test_a_lost_nodes_chore_goes_to_another_and_its_late_result_is_dropped(plane: Control) -> None:
    """The second giving-out has a higher number; what the first node says later changes nothing."""
    chore_id, _ = make(plane)
    (first,) = news(plane, "node-1", asks()).given
    attend_chores(plane.db, plane.limits, plane.leading)
    assert news(plane, "node-2", asks()).given == ()
    fall_silent(plane, chore_id)
    (second,) = news(plane, "node-2", asks()).given
    assert (second.id, second.attempt) == (first.id, first.attempt + 1)
    assert news(plane, "node-1", asks(first.handle, wanted=0)).dropped == (first.handle,)

    answer(plane, "node-1", ChoreDone(chore=first.handle))
    assert chores.get_chore(plane.db, chore_id).state is ChoreState.GIVEN  # type: ignore[union-attr]
    answer(plane, "node-2", ChoreDone(chore=second.handle))
    assert chores.get_chore(plane.db, chore_id).state is ChoreState.DONE  # type: ignore[union-attr]


def test_an_answer_to_an_earlier_giving_out_is_none_to_the_one_that_came_after(plane: Control) -> None:
    """Nor when both went to the same node, which was silent in between."""
    chore_id, _ = make(plane)
    (first,) = news(plane, "node-1", asks()).given
    fall_silent(plane, chore_id)
    (second,) = news(plane, "node-1", asks()).given
    assert second.attempt == first.attempt + 1

    answer(plane, "node-1", ChoreDone(chore=first.handle))
    assert chores.get_chore(plane.db, chore_id).state is ChoreState.GIVEN  # type: ignore[union-attr]
    answer(plane, "node-1", ChoreDone(chore=second.handle))
    assert chores.get_chore(plane.db, chore_id).state is ChoreState.DONE  # type: ignore[union-attr]


def test_what_fails_is_tried_again_and_in_the_end_given_up_with_an_alarm(plane: Control) -> None:
    """The wait grows; an alarm stands until a chore of the same subject succeeds."""
    for _ in range(FAILURES_MAX):
        make(plane)
        due(plane)
        (chore,) = news(plane, "node-1", asks()).given
        answer(plane, "node-1", ChoreFailed(chore=chore.handle, code="store_unavailable", message="Away."))
    (alarm,) = open_alarms(plane.db)
    assert (alarm.kind, alarm.subject) == ("chore_failed", "scrub a-1")
    assert plane.row("SELECT state, failures FROM chore")["state"] == "failed"

    make(plane)
    (chore,) = news(plane, "node-1", asks()).given
    answer(plane, "node-1", ChoreDone(chore=chore.handle))
    assert open_alarms(plane.db) == []


def test_a_result_that_cannot_be_read_holds_up_no_other(plane: Control) -> None:
    """It counts as a failure of its own chore, and leaves nothing half written (LAW 12)."""
    written: list[str] = []

    def apply(connection: Any, row: Any, result: Any) -> None:
        connection.execute("UPDATE chore SET progress = '{}' WHERE id = %s", (row["id"],))
        written.append(result["needed"])

    for subject in ("a-1", "a-2"):
        make(plane, subject)
    one, two = news(plane, "node-1", asks(wanted=2)).given
    results = (ChoreDone(chore=one.handle), ChoreDone(chore=two.handle, result={"needed": "this"}))
    answer(plane, "node-1", *results, scrub=Applies(done=apply))

    states = {row["id"]: (row["state"], row["progress"]) for row in plane.rows("SELECT * FROM chore")}
    assert sorted(states.values(), key=repr) == [("done", {}), ("waiting", None)]
    assert written == ["this"]


def test_progress_is_kept_for_people_who_wait(plane: Control) -> None:
    """Only of the giving-out that counts."""
    chore_id, _ = make(plane)
    (chore,) = news(plane, "node-1", asks()).given
    told = ChoreProgress(chore=chore.handle, phase="reading", done_bytes=5, total_bytes=9)
    late = ChoreProgress(chore=ChoreHandle(id=chore.id, attempt=99), phase="late")
    said = ChoresUp(kinds=(KIND,), progress=(told, late))
    chores.take_in(plane.db, "node-1", said, {}, Limits())
    status = chores.get_chore(plane.db, chore_id)
    assert status is not None
    assert status.progress == {"phase": "reading", "done_bytes": 5, "total_bytes": 9}


def test_a_cancelled_chore_is_taken_from_its_node(plane: Control) -> None:
    """It stops at the node's next look, and its result changes nothing."""
    chore_id, _ = make(plane)
    (chore,) = news(plane, "node-1", asks()).given
    assert chores.cancel_chore(plane.db, chore_id, actor="test", reason="not wanted")
    assert not chores.cancel_chore(plane.db, chore_id, actor="test", reason="not wanted")
    assert news(plane, "node-1", asks(chore.handle)).dropped == (chore.handle,)
    answer(plane, "node-1", ChoreDone(chore=chore.handle))
    assert chores.list_chores(plane.db)[0].state is ChoreState.CANCELLED


def test_chores_that_are_over_are_forgotten_after_a_while(plane: Control) -> None:
    """Open ones never are."""
    make(plane)
    old, _ = make(plane, "a-2")
    chores.cancel_chore(plane.db, old, actor="test", reason="x")
    with plane.db.transaction() as connection:
        assert chores.prune(connection, timedelta(0), 10) == 1
    assert [status.subject for status in chores.list_chores(plane.db)] == ["a-1"]
