"""What the database itself refuses, in the words that a person in psql gets; and what it counts by itself."""

import re
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state import ids
from state.database import Connection, Database, act_as
from state.model import Desired
from state.transitions import may_become
from tests.support.rows import (
    POD,
    WORKSPACE,
    add_pod,
    add_workspace,
)
from tests.support.rules import Program, refusal

LONG_TEXT = "x" * 501


# ---- values --------------------------------------------------------------------------------------------

VALUES = {
    "desired_state = NULL": "pod.desired_state cannot be NULL",
    "desired_state = 'paused'": "pod.desired_state cannot be 'paused'",
    "desired_state = 'Running'": "pod.desired_state cannot be 'Running'",
    "image = NULL": 'null value in column "image" of relation "pod" violates not-null constraint',
    "image = ''": "pod_image_is_an_image_reference",
    "image = 'a b'": "pod_image_is_an_image_reference",
    f"image = '{LONG_TEXT}'": "pod_image_is_at_most_400_chars",
    "lab = '../../etc'": "pod_lab_is_1_to_63_letters_digits_dot_underscore_and_dash",
    "cpu_millis = 0": "pod_cpu_millis_is_100_to_64000",
    "cpu_millis = NULL": 'null value in column "cpu_millis" of relation "pod" violates not-null constraint',
    "memory_mib = 100": "pod_memory_mib_is_256_to_262144",
    "pids = 1": "pod_pids_is_256_to_32768",
    "failover = 'now'": "pod_failover_is_wait_or_from_last_archive",
    f"desired_reason = '{LONG_TEXT}'": "pod_desired_reason_is_at_most_500_characters",
}


@pytest.mark.parametrize(("change", "words"), VALUES.items())
def test_an_impossible_value_is_refused_with_the_rule(person: Connection, change: str, words: str) -> None:
    """The message, or the name of the constraint in it, says what would be right."""
    message = refusal(person, f"UPDATE pod SET {change}").message_primary

    assert words in str(message)


def test_a_wrong_desired_state_says_which_are_right(person: Connection) -> None:
    """The hint lists the four states."""
    for change in ("NULL", "'off'"):
        told = refusal(person, f"UPDATE pod SET desired_state = {change}")
        assert told.message_hint == "Use one of running, stopped, archived, deleted."
        assert (told.table_name, told.column_name) == ("pod", "desired_state")


@pytest.mark.parametrize(("before", "after"), [*product(Desired, Desired)])
def test_the_trigger_knows_the_table_of_transitions(db: Database, before: Desired, after: Desired) -> None:
    """Of all sixteen changes of a desired state, just those of state.transitions pass."""
    with db.transaction() as connection:
        add_workspace(connection)
        add_pod(connection, desired=before)
        if may_become(before, after):
            connection.execute("UPDATE pod SET desired_state = %s", (after,))
        else:
            told = refusal(connection, f"UPDATE pod SET desired_state = '{after}'")
            assert told.message_primary == f"a deleted pod stays deleted: it cannot become {after}"
            assert told.message_hint == "Open a new pod for the same user; the workspace is still there."


def test_a_deleted_pod_cannot_be_changed(person: Connection) -> None:
    """Not its limits either, for its generation is what removal is ordered by."""
    person.execute("UPDATE pod SET desired_state = 'deleted'")

    assert refusal(person, "UPDATE pod SET pids = 300").message_primary == "a deleted pod cannot be changed"
    person.execute("UPDATE pod SET desired_state = 'deleted'")


def test_a_user_has_one_pod_of_a_name_that_is_not_deleted(one_pod: Database) -> None:
    """The name is free again once the pod has its tombstone."""
    with one_pod.transaction() as connection:
        again = f"""
            INSERT INTO pod (id, workspace_id, user_id, name, image, desired_state)
            VALUES ('p-cccccccccccc', '{WORKSPACE}', 'alice', 'main', 'codepods/pod', 'running')
        """
        assert refusal(connection, again).constraint_name == "pod_one_per_name"
        connection.execute("UPDATE pod SET desired_state = 'deleted'")
        connection.execute(again)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(pattern=st.sampled_from([ids.USER_ID_PATTERN, ids.LAB_PATTERN, ids.POD_NAME_PATTERN]), data=st.data())
def test_postgres_reads_the_patterns_as_python_does(db: Database, pattern: str, data: st.DataObject) -> None:
    """What the API lets through, the database takes, and the other way round."""

    text = data.draw(
        st.text(st.characters(exclude_characters="\x00", codec="utf-8")) | st.from_regex(pattern)
    )
    with db.transaction() as connection:
        row = connection.execute("SELECT %s ~ %s AS fits", (text, pattern)).fetchone()

    assert row == {"fits": re.fullmatch(pattern.removesuffix("$"), text) is not None}


# ---- owners --------------------------------------------------------------------------------------------

POD_OWNERS = {
    "id": ("'p-zzzzzzzzzzzz'", "the pod's identity, which never changes"),
    "workspace_id": ("'w-zzzzzzzzzzzz'", "the pod's identity, which never changes"),
    "user_id": ("'mallory'", "the pod's identity, which never changes"),
    "name": ("'other'", "the pod's identity, which never changes"),
    "created_at": ("'epoch'", "the pod's identity, which never changes"),
    "generation": ("7", "the database, which counts changes itself"),
    "desired_at": ("'epoch'", "the database, which counts changes itself"),
    "deleted_at": ("'epoch'", "the database, which counts changes itself"),
    "satisfied_generation": ("1", "the reconciler"),
    "image_id": ("'sha256:1'", "the reconciler"),
    "archive_id": ("NULL", "the reconciler"),
    "failure": ("'{}'", "the reconciler"),
    "condition": ("'settled'", "the reconciler"),
    "reason": ("'all is well'", "the reconciler"),
    "reason_since": ("'epoch'", "the reconciler"),
    "next_check_at": ("NULL", "the reconciler"),
}


@pytest.mark.parametrize(("column", "value", "owner"), [(c, *rest) for c, rest in POD_OWNERS.items()])
def test_a_person_changes_no_column_of_anothers(
    person: Connection, column: str, value: str, owner: str
) -> None:
    """The message names the column and whose it is; the hint says what one may change (LAW 3)."""
    told = refusal(person, f"UPDATE pod SET {column} = {value}")

    assert told.message_primary == f"pod.{column} belongs to {owner}"
    assert told.sqlstate == "42501"
    assert str(told.message_hint).startswith(
        "People and the API change desired_state, desired_reason, asked_again, image, lab,"
    )


def test_one_refusal_names_all_columns(person: Connection) -> None:
    """Who changes three columns of the reconciler's is told so once; the desired one is not among them."""
    change = "UPDATE pod SET desired_state = 'stopped', reason = 'x', condition = 'y', failure = '{}'"

    assert (
        refusal(person, change).message_primary
        == "pod.condition, pod.failure, pod.reason belongs to the reconciler"
    )


def test_the_api_is_no_reconciler_and_the_reconciler_no_api(one_pod: Database, database_url: str) -> None:
    """Programs keep to their columns like people do; a lifecycle policy may change what is desired."""
    with Program(database_url, "api") as api:
        assert (
            refusal(api, "UPDATE pod SET condition = 'x'").message_primary
            == "pod.condition belongs to the reconciler"
        )
        api.execute("UPDATE pod SET desired_state = 'stopped'")
    with Program(database_url, "reconciler") as reconciler:
        reconciler.execute("UPDATE pod SET condition = 'x', satisfied_generation = generation")
        told = refusal(reconciler, "UPDATE pod SET desired_state = 'stopped'")
        assert told.message_primary == "the reconciler does not change what is desired"
        assert told.message_hint == "A lifecycle policy may: it sets codepods.actor to policy:<its name>."
        act_as(reconciler, "policy:idle")
        reconciler.execute("UPDATE pod SET desired_state = 'stopped', desired_reason = 'idle for an hour'")


def test_a_new_pod_brings_no_decisions_along(one_pod: Database, database_url: str) -> None:
    """The API cannot make a pod that looks satisfied, or restored from somebody's archive."""
    with Program(database_url, "api") as api:
        told = refusal(
            api,
            f"""INSERT INTO pod (id, workspace_id, user_id, name, image, desired_state, satisfied_generation)
                VALUES ('p-cccccccccccc', '{WORKSPACE}', 'alice', 'two', 'codepods/pod', 'running', 1)""",
        )
    assert told.message_primary == "a new pod has no history: what the reconciler decides must be left out"


PROGRAMS_TABLES = {
    "workspace": ("UPDATE workspace SET epoch = 9", "reconciler"),
    "placement": ("UPDATE placement SET released_at = now()", "reconciler"),
    "pod_observed": ("UPDATE pod_observed SET state = 'stopped'", "reconciler"),
    "workspace_observed": ("DELETE FROM workspace_observed", "reconciler"),
    "node_lease": ("UPDATE node_lease SET last_seen_at = now()", "reconciler"),
    "report": ("DELETE FROM report", "reconciler"),
    "action": ("UPDATE action SET state = 'done', finished_at = now()", "reconciler"),
    "archive": ("DELETE FROM archive", "reconciler"),
    "leader": ("DELETE FROM leader", "reconciler"),
    "api_token": ("UPDATE api_token SET scope = 'admin'", "api"),
    "node": ("INSERT INTO node (id, token_hash) VALUES ('mine', 'x')", "api and the reconciler"),
}


@pytest.mark.parametrize(("table", "statement", "owner"), [(t, *rest) for t, rest in PROGRAMS_TABLES.items()])
def test_a_person_writes_no_table_of_the_programs(
    person: Connection, table: str, statement: str, owner: str
) -> None:
    """Each refusal names the table's writer, and what to change instead."""
    told = refusal(person, statement)

    assert told.message_primary == f"table {table} is written by the {owner} only"
    assert str(told.message_hint).startswith("Say what you want instead: UPDATE pod SET desired_state = …")


def test_a_node_is_cordoned_by_people_and_described_by_itself(person: Connection) -> None:
    """`cordoned` is the one column of a node that is desired."""
    person.execute("UPDATE node SET cordoned = true")

    told = refusal(person, "UPDATE node SET address = '10.0.0.1', cpu_millis = 1")
    assert told.message_primary == "node.address, node.cpu_millis belongs to the system"
    assert refusal(person, "UPDATE node SET id = 'x'").message_primary == (
        "a node's id and time of registration never change"
    )


@pytest.mark.parametrize("table", ["pod", "workspace", "node"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_nothing_is_removed_but_by_a_tombstone(one_pod: Database, table: str, statement: str) -> None:
    """Not even a program may delete a row that stands for somebody's files (LAW 9)."""
    with one_pod.transaction() as connection:
        told = refusal(connection, statement.format(table))

    assert "are never removed" in str(told.message_primary)
    assert str(told.message_hint).endswith("UPDATE pod SET desired_state = 'deleted' WHERE id = ….")


@pytest.mark.parametrize("statement", ["UPDATE {} SET node_id = 'x'", "TRUNCATE {}"])
@pytest.mark.parametrize("table", ["event", "archive"])
def test_history_and_archives_are_written_once(one_pod: Database, table: str, statement: str) -> None:
    """Nobody edits an event, or what an archive was made of."""
    with one_pod.transaction() as connection:
        told = refusal(connection, statement.format(table) + (" CASCADE" if "TRUNCATE" in statement else ""))

    assert "written once" in str(told.message_primary) or "never removed" in str(told.message_primary)


def test_an_event_cannot_be_deleted(one_pod: Database) -> None:
    """Not even by a program."""
    with one_pod.transaction() as connection:
        assert (
            refusal(connection, "DELETE FROM event").message_primary
            == "event rows are written once: DELETE is refused"
        )


def test_an_epoch_only_grows(one_pod: Database) -> None:
    """A lower epoch would let two nodes believe that they are the right one (LAW 5)."""
    with one_pod.transaction() as connection:
        told = refusal(connection, "UPDATE workspace SET epoch = 0")

    assert told.message_primary == "workspace.epoch only grows: 1 cannot become 0"


def test_a_workspace_keeps_its_user(one_pod: Database) -> None:
    """Containers, volumes and archives carry the user's id."""
    with one_pod.transaction() as connection:
        told = refusal(connection, "UPDATE workspace SET user_id = 'mallory'")

    assert told.message_primary == "a workspace's id, user and time of creation never change"


def test_a_closed_action_stays_closed(one_pod: Database) -> None:
    """A late result cannot reopen what was superseded, nor turn done into failed."""
    with one_pod.transaction() as connection:
        connection.execute("UPDATE action SET state = 'superseded', finished_at = now()")
        told = refusal(connection, "UPDATE action SET state = 'open', finished_at = NULL")

    assert "is superseded and stays so" in str(told.message_primary)


def test_a_target_has_one_open_action_and_a_workspace_one_placement(one_pod: Database) -> None:
    """Two reconcilers that plan the same at once cannot both enqueue it (LAW 5)."""
    with one_pod.transaction() as connection:
        second = f"""INSERT INTO action (id, target, target_kind, verb, workspace_id, pod_id, node_id, epoch,
                     generation, attempt, step) VALUES (gen_random_uuid(), '{POD}', 'pod', 'stop_pod',
                     '{WORKSPACE}', '{POD}', 'node-1', 1, 1, 2, '{{}}')"""
        assert refusal(connection, second).constraint_name == "action_one_open_per_target"
        placed = f"INSERT INTO placement (workspace_id, epoch, node_id) VALUES ('{WORKSPACE}', 2, 'node-1')"
        assert refusal(connection, placed).constraint_name == "placement_current"
