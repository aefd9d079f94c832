"""What the API does to pods and reads of them, on a real database."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from state import events, pods
from state.backoff import KEEPS_FAILING
from state.database import Database
from state.model import Desired, Failure, OpenAction, Resources, Verb
from state.rows import failure_to_json
from state.snapshot import database_clock
from tests.support.rows import (
    NODE,
    POD,
    add_action,
    add_archive,
    add_node,
    add_pod,
    add_workspace,
    observe,
    place,
)

DEFAULT_IMAGE = "codepods/pod:1"


def opened(db: Database, **changes: Any) -> tuple[pods.PodStatus, bool]:
    """Alice opens her pod, with some things asked for otherwise."""
    asked: dict[str, Any] = {
        "user_id": "alice",
        "name": "main",
        "image": None,
        "lab": None,
        "resources": None,
        "desired": Desired.RUNNING,
        "actor": "api:revpro",
        "reason": "opened a lab",
        "default_image": DEFAULT_IMAGE,
    }
    return pods.create_or_open(db, **{**asked, **changes})


@pytest.fixture
def placed(db: Database) -> Database:
    """The pod of tests.support.rows, placed on a node and not reported yet."""
    with db.transaction() as connection:
        add_workspace(connection)
        add_pod(connection)
        add_node(connection)
        place(connection)
    return db


# ---- opening -----------------------------------------------------------------------------------------------


def test_opening_a_pod_makes_it_once(db: Database) -> None:
    """The second time nothing is made and nothing changes."""
    first, made = opened(db)
    second, made_again = opened(db)

    assert (made, made_again) == (True, False)
    assert first == second
    assert (first.image, first.lab, first.resources) == (DEFAULT_IMAGE, None, Resources())
    assert (first.generation, first.satisfied_generation, first.actual, first.node_id) == (
        1,
        0,
        "absent",
        None,
    )


def test_many_requests_at_once_make_one_pod_and_one_workspace(db: Database) -> None:
    """Eight requests for a new user at once: they wait for each other."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: opened(db), range(8)))

    assert len({status.id for status, _ in answers}) == 1
    assert [made for _, made in answers].count(True) == 1


def test_the_pods_of_a_user_share_a_workspace(db: Database) -> None:
    """A second name is a second pod, in the same workspace; another user's is in another."""
    main, _ = opened(db)
    second, made = opened(db, name="second")
    other, _ = opened(db, user_id="bob")

    assert made
    assert main.id != second.id
    assert main.workspace_id == second.workspace_id != other.workspace_id


def test_opening_a_stopped_pod_starts_it(db: Database) -> None:
    """It is a new generation, in the name of who opened it."""
    first, _ = opened(db)
    pods.set_desired(db, first.id, Desired.STOPPED, actor="policy:idle", reason="idle for an hour")
    again, made = opened(db, reason="opened again")

    assert (made, again.desired, again.generation, again.desired_reason) == (
        False,
        "running",
        3,
        "opened again",
    )
    told = events.list_events(db, pod_id=first.id)
    assert [(event.actor, event.to_value, event.reason) for event in told] == [
        ("api:revpro", "running", "opened a lab"),
        ("policy:idle", "stopped", "idle for an hour"),
        ("api:revpro", "running", "opened again"),
    ]


def test_a_pod_made_otherwise_is_not_opened_in_silence(db: Database) -> None:
    """All differences are named, what is and what was asked; the pod stays as it is."""
    first, _ = opened(db, lab="hello")
    with pytest.raises(pods.PodDiffers) as refused:
        opened(db, lab="other", resources=Resources(cpu_millis=2000), image=DEFAULT_IMAGE)

    assert refused.value.differs == {"lab": ("hello", "other"), "cpu_millis": (1000, 2000)}
    assert str(refused.value) == (
        f"Pod {first.id} exists and differs: lab is hello, not other; cpu_millis is 1000, not 2000."
    )
    assert pods.get_pod(db, first.id) == first


def test_what_is_not_asked_for_does_not_differ(db: Database) -> None:
    """A pod with a lab and limits of its own is opened by its name alone."""
    first, _ = opened(db, lab="hello", image="other/image", resources=Resources(2000, 4096, 1024))

    assert opened(db) == (first, False)
    assert opened(db, resources={"cpu_millis": 2000}) == (first, False)


def test_the_name_of_a_deleted_pod_is_free(db: Database) -> None:
    """A new pod of the name is another pod; its user's workspace is the old one."""
    first, _ = opened(db)
    pods.set_desired(db, first.id, Desired.DELETED, actor="api:revpro", reason=None)
    second, made = opened(db)

    assert made
    assert second.id != first.id
    assert second.workspace_id == first.workspace_id


def test_a_new_pod_needs_an_image(db: Database) -> None:
    """Asked for or by default; and nothing of the attempt stays behind."""
    with pytest.raises(ValueError, match="a new pod needs an image"):
        opened(db, default_image=None)

    assert pods.list_pods(db) == []


# ---- desiring ----------------------------------------------------------------------------------------------


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(wanted=st.lists(st.sampled_from([Desired.RUNNING, Desired.STOPPED, Desired.ARCHIVED]), max_size=8))
def test_a_generation_is_a_change(db: Database, wanted: list[Desired]) -> None:
    """Saying the same again is none; each other order is one, with one event."""
    status, _ = opened(db)
    before, told = status.generation, len(events.list_events(db, pod_id=status.id, limit=1000))
    changes = sum(a is not b for a, b in zip([status.desired, *wanted], wanted, strict=False))
    for desired in wanted:
        status = pods.set_desired(db, status.id, desired, actor="api:test", reason=None)

    assert status.generation == before + changes
    assert len(events.list_events(db, pod_id=status.id, limit=1000)) == told + changes


def test_a_pod_that_was_changed_meanwhile_is_left_alone(db: Database) -> None:
    """`if_generation` makes a decision void when somebody else has decided since."""
    status, _ = opened(db)
    pods.set_desired(db, status.id, Desired.STOPPED, actor="admin", reason=None)

    with pytest.raises(pods.GenerationConflict, match="is of generation 2, not 1"):
        pods.set_desired(db, status.id, Desired.ARCHIVED, actor="api:x", reason=None, if_generation=1)
    pods.set_desired(db, status.id, Desired.ARCHIVED, actor="api:x", reason=None, if_generation=2)


def test_unknown_and_deleted_pods_are_told_apart(db: Database) -> None:
    """One was never there; the other does not come back, and deleting it again is no error."""
    with pytest.raises(pods.PodNotFound):
        pods.set_desired(db, "p-zzzzzzzzzzzz", Desired.RUNNING, actor="admin", reason=None)
    status, _ = opened(db)
    for _ in range(2):
        deleted = pods.set_desired(db, status.id, Desired.DELETED, actor="admin", reason=None)
        assert (deleted.desired, deleted.generation) == ("deleted", 2)
    with pytest.raises(pods.PodDeleted):
        pods.set_desired(db, status.id, Desired.RUNNING, actor="admin", reason=None)


# ---- asking again ------------------------------------------------------------------------------------------


def fail(db: Database, table: str, **changes: Any) -> None:
    """A step of each pod, or of each workspace, has just failed for good; or as `changes` say."""
    now = database_clock(db)
    failed: dict[str, Any] = {
        "verb": Verb.CREATE_POD,
        "code": "lab_not_found",
        "message": "There is no lab hello. Publish it.",
        "count": 1,
        "generation": 1 if table == "pod" else 0,
        "permanent": True,
        "failed_at": now,
        "retry_at": now + changes.pop("retry_in", timedelta(minutes=10)),
    }
    value = Jsonb(failure_to_json(Failure(**{**failed, **changes})))
    with db.transaction() as connection:
        connection.execute(f"UPDATE {table} SET failure = %s", (value,))


@pytest.mark.parametrize("table", ["pod", "workspace"])
def test_asking_again_makes_a_failure_void(db: Database, table: str) -> None:
    """Opening a parked pod is a new generation, with an event; its failure is void. Then no more."""
    status, _ = opened(db)
    fail(db, table)
    parked = pods.get_pod(db, status.id)
    again, made = opened(db, reason=None)

    assert parked is not None
    assert parked.failure is not None
    assert (parked.failure.code, parked.failure.generation) == ("lab_not_found", 1)
    assert (made, again.generation, again.desired_reason, again.failure) == (False, 2, "asked again", None)
    newest = events.list_events(db, pod_id=status.id, newest=True, limit=1)[0]
    assert (newest.actor, newest.from_value, newest.to_value) == ("api:revpro", "running", "running")
    assert opened(db) == (again, False)


@pytest.mark.parametrize(
    ("failed", "generation"),
    [
        ({"permanent": False, "retry_in": timedelta(minutes=5)}, 2),
        ({"permanent": False, "retry_in": timedelta(seconds=-1), "count": KEEPS_FAILING}, 2),
        ({"permanent": False, "retry_in": timedelta(seconds=1)}, 1),
        ({"generation": 0}, 1),
    ],
    ids=["backing off", "keeps failing", "tried again soon anyway", "void already"],
)
def test_what_is_worth_asking_again(db: Database, failed: dict[str, Any], generation: int) -> None:
    """Only what somebody would have to wait for: polling must not undo the back-off."""
    status, _ = opened(db)
    fail(db, "pod", **failed)

    again = pods.set_desired(db, status.id, Desired.RUNNING, actor="api:x", reason=None)

    assert again.generation == generation


def test_a_pod_that_is_as_wanted_is_not_asked_again(placed: Database) -> None:
    """It ran into something before, and runs now."""
    with placed.transaction() as connection:
        observe(connection, "running")
    fail(placed, "pod", permanent=False, count=KEEPS_FAILING)

    again = pods.set_desired(placed, POD, Desired.RUNNING, actor="api:x", reason=None)

    assert again.generation == 1


def test_a_workspace_that_failed_is_told_by_the_pods_that_wait_for_it(db: Database) -> None:
    """Not by one that is wanted stopped and was never there: it needs no workspace."""
    waits, _ = opened(db)
    idle, _ = opened(db, name="idle", desired=Desired.STOPPED)
    fail(db, "workspace", verb=Verb.RESTORE_WORKSPACE, code="archive_damaged")

    told = {status.id: status.failure for status in pods.list_pods(db)}

    assert told[idle.id] is None
    failure = told[waits.id]
    assert failure is not None
    assert (failure.verb, failure.code) == ("restore_workspace", "archive_damaged")


# ---- reading -----------------------------------------------------------------------------------------------


def test_pages_of_pods_follow_each_other(db: Database) -> None:
    """Every pod is on one page, in the order of ids; a user's list has the user's pods."""
    made = sorted(opened(db, user_id=f"user-{number % 2}", name=f"pod-{number}")[0].id for number in range(7))
    pages: list[str] = []
    while page := pods.list_pods(db, after=pages[-1] if pages else None, limit=3):
        assert len(page) <= 3
        pages += [status.id for status in page]

    assert pages == made
    assert {status.user_id for status in pods.list_pods(db, user_id="user-1")} == {"user-1"}
    assert pods.list_pods(db, user_id="nobody") == []


def test_a_status_has_the_archive_and_the_step_under_way(placed: Database) -> None:
    """What people wait for: which step, where, how far."""
    with placed.transaction() as connection:
        archive_id = add_archive(connection)
        add_action(connection, "archive_pod")
        connection.execute("""UPDATE action SET progress = '{"phase": "upload", "done_bytes": 7}'""")
    status = pods.get_pod(placed, POD)

    assert status is not None
    assert status.archive is not None
    assert (status.archive.id, status.archive.number, status.archive.size_bytes) == (archive_id, 1, 10)
    assert isinstance(status.open_action, OpenAction)
    assert (status.open_action.verb, status.open_action.node_id) == (Verb.ARCHIVE_POD, NODE)
    assert status.progress == {"phase": "upload", "done_bytes": 7}


def test_a_failure_that_cannot_be_read_hides_nothing(placed: Database) -> None:
    """One bad row stays one bad row: the list still has the pod (LAW 12)."""
    with placed.transaction() as connection:
        connection.execute("""UPDATE pod SET failure = '{"of another": "version"}', reason = 'parked'""")

    assert [(status.failure, status.reason) for status in pods.list_pods(placed)] == [(None, "parked")]


def test_there_is_access_only_while_the_right_node_sees_it_running(placed: Database) -> None:
    """Not while it starts, and not by the word of an earlier placement (LAW 5)."""
    assert pods.access_of(placed, POD) is None
    with placed.transaction() as connection:
        observe(connection, "running")
    access = pods.access_of(placed, POD)
    assert access == pods.PodAccess(POD, "alice", NODE, 1, "127.0.0.1:4000", "5e55" * 16)
    for change in (
        "UPDATE pod_observed SET state = 'starting'",
        "UPDATE pod_observed SET state = 'running', epoch = 0",
    ):
        with placed.transaction() as connection:
            connection.execute(change)
        assert pods.access_of(placed, POD) is None


def test_a_secret_does_not_show_in_a_log(placed: Database) -> None:
    """Whoever prints an access prints no secret."""
    with placed.transaction() as connection:
        observe(connection, "running")

    assert "5e55" not in repr(pods.access_of(placed, POD))
