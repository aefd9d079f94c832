"""What the database counts by itself, whoever writes; and how many pods may change at once."""

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.database import Connection, Database, act_as
from tests.support.rows import POD, add_pod, add_workspace, numbered_pod
from tests.support.rules import Program, refusal

# ---- counting ------------------------------------------------------------------------------------------


def test_psql_and_the_api_leave_the_same_trace(
    one_pod: Database, database_url: str, person: Connection
) -> None:
    """A change by hand makes a generation, comes due, and leaves an event with the login."""
    person.execute("UPDATE pod SET desired_state = 'stopped'")
    row = person.execute(
        "SELECT generation, desired_reason, next_check_at <= now() AS due FROM pod"
    ).fetchone()
    event = person.execute("SELECT * FROM event ORDER BY id DESC LIMIT 1").fetchone()

    assert row == {"generation": 2, "desired_reason": "changed in SQL by codepods", "due": True}
    assert event is not None
    assert (event["actor"], event["kind"], event["from_value"], event["to_value"]) == (
        "codepods",
        "desired",
        "running",
        "stopped",
    )
    assert event["detail"] == {"generation": 2, "changed": {"desired_state": ["running", "stopped"]}}


def test_a_reason_given_by_hand_is_kept(person: Connection) -> None:
    """And an old one is not taken for the reason of a new change."""
    person.execute("UPDATE pod SET desired_state = 'stopped', desired_reason = 'course is over'")
    person.execute("UPDATE pod SET desired_state = 'archived'")
    reasons = person.execute(
        "SELECT reason FROM event WHERE pod_id = %s ORDER BY id DESC LIMIT 2", (POD,)
    ).fetchall()

    assert [row["reason"] for row in reasons] == ["changed in SQL by codepods", "course is over"]


def test_saying_what_is_so_already_is_no_change(person: Connection) -> None:
    """No generation, no event: an UPDATE that changes nothing makes no work."""
    before = person.execute("SELECT count(*) AS n FROM event").fetchone()
    person.execute("UPDATE pod SET desired_state = desired_state, pids = pids")

    assert person.execute("SELECT generation FROM pod").fetchone() == {"generation": 1}
    assert person.execute("SELECT count(*) AS n FROM event").fetchone() == before


CHANGES = st.sampled_from(
    [
        *(("api", f"desired_state = '{state}'") for state in ("running", "stopped", "archived", "deleted")),
        *(("", f"desired_state = '{state}'") for state in ("running", "stopped", "archived")),
        ("", "cpu_millis = 500"),
        ("", "cpu_millis = 600"),
        ("api", "asked_again = asked_again + 1"),
        ("", "satisfied_generation = generation"),
        ("", "generation = generation + 1"),
        ("api", "condition = 'x'"),
        ("reconciler", "satisfied_generation = generation, condition = 'settled', next_check_at = NULL"),
        ("reconciler", "desired_state = 'deleted'"),
        ("reconciler", "failure = '{}'"),
    ]
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=st.lists(CHANGES, max_size=12))
def test_whoever_writes_in_whatever_order_the_counting_is_right(
    db: Database, changes: list[tuple[str, str]]
) -> None:
    """One generation and one event for each change of what is desired; no way back from deleted."""
    with db.transaction() as connection, connection.transaction(force_rollback=True):
        add_workspace(connection)
        add_pod(connection)
        wanted = [desired_of(connection)]
        for program, change in changes:
            attempt(connection, program, change)
            wanted += [now] if (now := desired_of(connection)) != wanted[-1] else []
        row = connection.execute("SELECT generation, satisfied_generation AS satisfied FROM pod").fetchone()
        events = connection.execute(
            "SELECT (detail ->> 'generation')::int AS g FROM event ORDER BY id"
        ).fetchall()

    assert row is not None
    assert row["generation"] == len(wanted)
    assert [event["g"] for event in events] == list(range(1, len(wanted) + 1))
    assert row["satisfied"] <= row["generation"]
    assert all(state != "deleted" for state, *_ in wanted[:-1])


def desired_of(connection: Connection) -> tuple[str, int, int]:
    """What is desired of the pod, as far as the changes above touch it."""
    row = connection.execute("SELECT desired_state, cpu_millis, asked_again FROM pod").fetchone()
    assert row is not None
    return row["desired_state"], row["cpu_millis"], row["asked_again"]


def attempt(connection: Connection, program: str, change: str) -> None:
    """One change by one program, or by a person; refused or not."""
    try:
        with connection.transaction():
            connection.execute("SELECT set_config('codepods.program', %s, true)", (program,))
            connection.execute(f"UPDATE pod SET {change}")
    except psycopg.Error:
        return


# ---- many at once --------------------------------------------------------------------------------------


@pytest.fixture
def many(one_pod: Database) -> Database:
    """Fifty-one more pods."""
    with one_pod.transaction() as connection:
        for number in range(51):
            add_pod(connection, numbered_pod(number), f"pod-{number}")
    return one_pod


def test_a_forgotten_where_is_refused(many: Database, person: Connection) -> None:
    """More than fifty pods at once must be meant; the hint shows how to mean it (LAW 4)."""
    told = refusal(person, "UPDATE pod SET desired_state = 'archived'")

    assert told.message_primary == "this statement changes more than 50 pods, so it must say that it is meant"
    assert told.message_hint == "BEGIN; SET LOCAL codepods.bulk_ok = 'on'; UPDATE …; COMMIT;"
    person.execute("SET LOCAL codepods.bulk_ok = 'on'")
    assert person.execute("UPDATE pod SET desired_state = 'archived'").rowcount == 52


def test_fifty_are_not_many_and_the_number_is_a_setting(many: Database, person: Connection) -> None:
    """The bound is on pods that change, not on rows that are named."""
    assert person.execute(
        "UPDATE pod SET desired_state = 'stopped' WHERE id <> %s AND id <> %s", (POD, numbered_pod(0))
    )
    person.execute("UPDATE pod SET desired_state = 'stopped'")
    person.execute("SET LOCAL codepods.bulk_max = 10")

    assert "more than 10 pods" in str(
        refusal(person, "UPDATE pod SET desired_state = 'running'").message_primary
    )


def test_the_reconciler_writes_its_own_columns_of_all(many: Database, database_url: str) -> None:
    """Decisions about thousands of pods are its work; but a policy's are bounded like a person's."""
    with Program(database_url, "reconciler") as reconciler:
        assert reconciler.execute("UPDATE pod SET condition = 'settled'").rowcount == 52
        act_as(reconciler, "policy:idle")
        assert refusal(reconciler, "UPDATE pod SET desired_state = 'stopped'").sqlstate == "09000"
