"""What people get who use SQL as codepods_admin: in psql, by hand."""

import os
import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from state.columns import Owner
from state.database import Connection, Database
from state.embedded import psql_path
from state.tables import PodRow
from tests.support.postgres import TestServer
from tests.support.rows import (
    NODE,
    POD,
    add_action,
    add_archive,
    add_node,
    add_pod,
    add_workspace,
    numbered_pod,
    observe,
    place,
)

TABLES = [
    "workspace",
    "placement",
    "pod",
    "pod_observed",
    "workspace_observed",
    "node",
    "node_lease",
    "report",
    "action",
    "archive",
    "event",
    "api_token",
    "leader",
]


@pytest.fixture
def world(db: Database) -> Database:
    """One pod, running on one node."""
    with db.transaction() as connection:
        add_workspace(connection)
        add_pod(connection)
        add_node(connection)
        place(connection)
        observe(connection, "running")
    return db


@pytest.fixture
def admin(world: Database, admin_url: str) -> Iterator[Connection]:
    """A session of an admin, with autocommit as psql has it."""
    with psycopg.connect(admin_url, row_factory=dict_row, autocommit=True) as connection:
        yield connection


def psql(url: str, statement: str) -> subprocess.CompletedProcess[str]:
    """A one-liner, as a person types it."""
    return subprocess.run(
        [psql_path(), url, "--no-psqlrc", "--tuples-only", "--no-align", "--command", statement],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


def refusal(connection: Connection, statement: str) -> psycopg.errors.Diagnostic:
    """How the database refuses a statement."""
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(statement)
    return caught.value.diag


def test_a_one_liner_in_psql_archives_a_pod(world: Database, admin_url: str) -> None:
    """It makes a generation, an event in the admin's name, and the pod comes due: like the API's call."""
    done = psql(admin_url, "UPDATE pod SET desired_state = 'archived' WHERE user_id = 'alice'")

    assert (done.stdout.strip(), done.stderr, done.returncode) == ("UPDATE 1", "", 0)
    with world.transaction() as connection:
        pod = connection.execute(
            "SELECT desired_state, generation, next_check_at <= now() AS due FROM pod"
        ).fetchone()
        event = connection.execute(
            "SELECT actor, from_value, to_value FROM event ORDER BY id DESC"
        ).fetchone()
    assert pod == {"desired_state": "archived", "generation": 2, "due": True}
    assert event == {"actor": "codepods_admin", "from_value": "running", "to_value": "archived"}


def test_a_change_by_hand_rings_the_bell(admin: Connection, database_url: str) -> None:
    """The reconciler hears of it at once, not at its next look."""
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN codepods_desired")
        admin.execute("UPDATE pod SET desired_state = 'stopped'")
        heard = list(listener.notifies(timeout=60, stop_after=1))

    assert [(notify.channel, notify.payload) for notify in heard] == [("codepods_desired", "")]


DESIRED = [
    column.name for column in PodRow.metadata.tables["pod"].columns if column.info["owner"] is Owner.DESIRED
]
REFUSED_IN_PSQL = {
    "UPDATE pod SET desired_state = 'paused'": [
        "ERROR:  pod.desired_state cannot be 'paused'",
        "HINT:  Use one of running, stopped, archived, deleted.",
    ],
    "UPDATE pod SET desired_state = NULL": [
        "ERROR:  pod.desired_state cannot be NULL",
        'DETAIL:  There is no state that means "do not care": a pod is always on its way to one of four.',
        "HINT:  Use one of running, stopped, archived, deleted.",
    ],
    "UPDATE pod SET satisfied_generation = 1, desired_state = 'stopped'": [
        "ERROR:  an admin may not change pod.satisfied_generation: it belongs to the system",
        "DETAIL:  Each column has one writer, so that nobody undoes what another has just decided.",
        f"HINT:  What an admin may change here: {', '.join(DESIRED)}.",
    ],
    "UPDATE node SET address = '10.0.0.1'": [
        "ERROR:  an admin may not change node.address: it belongs to the system",
        "HINT:  What an admin may change here: cordoned.",
    ],
    "UPDATE workspace SET epoch = 7": [
        "ERROR:  an admin may not change workspace.epoch: it belongs to the system",
        "HINT:  What an admin may change here: closed_grace_s, idle_limit_s, lifetime_s, archive_after_s.",
    ],
    "DELETE FROM pod": [
        "ERROR:  an admin may not delete rows of pod",
        "HINT:  UPDATE pod SET desired_state = 'deleted' WHERE id = …",
    ],
    "INSERT INTO pod (id) VALUES ('p-aaaaaaaaaaaa')": [
        "ERROR:  an admin may not insert rows of pod",
        "HINT:  Open pods with podctl or the API.",
    ],
}


@pytest.mark.parametrize(("statement", "lines"), REFUSED_IN_PSQL.items())
def test_psql_shows_why_it_was_refused(
    world: Database, admin_url: str, statement: str, lines: list[str]
) -> None:
    """The very lines that a person reads."""
    done = psql(admin_url, statement)

    assert done.returncode == 1
    assert [line for line in lines if line not in done.stderr.splitlines()] == []


@pytest.mark.parametrize("table", TABLES)
def test_everything_can_be_read_but_secrets(admin: Connection, table: str) -> None:
    """`SELECT *` works on every table, and shows nothing that opens an IDE or proves who one is."""
    columns = admin.execute(f"SELECT * FROM {table} LIMIT 0").description or []

    assert columns
    assert {column.name for column in columns} & {"session_secret", "token_hash", "hash"} == set()


@pytest.mark.parametrize(
    "secret",
    ["session_secret FROM public.pod_observed", "token_hash FROM public.node", "hash FROM public.api_token"],
)
def test_secrets_are_behind_the_wall(admin: Connection, secret: str) -> None:
    """Going past the desk to the table itself meets the grants."""
    assert "permission denied" in str(refusal(admin, f"SELECT {secret}").message_primary)


WALL = [
    "UPDATE public.pod SET satisfied_generation = 1",
    "UPDATE public.pod SET next_check_at = NULL",
    "UPDATE public.node SET token_hash = 'mine'",
    "UPDATE public.workspace SET epoch = 9",
    "DELETE FROM public.pod",
    "TRUNCATE public.event",
    "INSERT INTO public.event (actor, kind) VALUES ('nobody', 'desired')",
    "INSERT INTO public.api_token (id, name, scope, hash) VALUES ('t-aaaaaaaaaaaa', 'me', 'admin', 'x')",
    "ALTER TABLE public.pod DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
    "SELECT open_to_admins()",
    "CREATE TABLE codepods_admin.mine (id int)",
    "DROP TRIGGER desk_1_refuse ON codepods_admin.pod",
]


@pytest.mark.parametrize("statement", WALL)
def test_ill_will_meets_the_grants(admin: Connection, statement: str) -> None:
    """Pretending to be a program switches the explanations off, and the wall stays (LAW 3)."""
    admin.execute("SET codepods.program = 'api,reconciler'")

    told = str(refusal(admin, statement).message_primary)

    assert "permission denied" in told or "must be owner" in told


def test_the_desk_grants_nothing_by_itself(admin: Connection, world: Database) -> None:
    """Its views have the reader's rights: what a DBA takes away from the tables is gone from the desk."""
    with world.transaction() as connection:
        connection.execute("REVOKE SELECT ON public.event FROM codepods_admin")

    assert refusal(admin, "SELECT * FROM event").message_primary == "permission denied for table event"


def test_nobody_writes_history_in_anothers_name(admin: Connection) -> None:
    """An admin who sets the actor is still named by their login."""
    admin.execute("SET codepods.actor = 'api:revpro'")
    admin.execute("UPDATE pod SET desired_state = 'stopped'")

    event = admin.execute("SELECT actor FROM event ORDER BY id DESC LIMIT 1").fetchone()
    assert event == {"actor": "codepods_admin"}


def test_the_desired_columns_of_the_table_itself_are_open(admin: Connection) -> None:
    """An admin whose search path does not begin with the desk can still do what an admin may."""
    admin.execute("SET search_path = public")
    admin.execute("UPDATE pod SET desired_state = 'stopped'")

    assert refusal(admin, "UPDATE pod SET reason = 'x'").message_primary == "permission denied for table pod"


def test_only_what_a_statement_changes_is_written(admin: Connection, world: Database) -> None:
    """Two changes of two columns at once both stay."""
    with admin.transaction():
        admin.execute("UPDATE pod SET memory_mib = 4096")
        assert admin.execute("SELECT cpu_millis FROM pod").fetchone() == {"cpu_millis": 1000}
    with world.transaction() as connection:
        connection.execute("UPDATE pod SET cpu_millis = 500")
    admin.execute("UPDATE pod SET desired_state = 'stopped', desired_reason = 'evening'")

    assert admin.execute(
        "SELECT cpu_millis, memory_mib, desired_state, desired_reason FROM pod"
    ).fetchone() == {
        "cpu_millis": 500,
        "memory_mib": 4096,
        "desired_state": "stopped",
        "desired_reason": "evening",
    }


def test_many_pods_at_once_must_be_meant(admin: Connection, world: Database) -> None:
    """The bound holds at the desk too, though it writes row by row."""
    with world.transaction() as connection:
        for number in range(51):
            add_pod(connection, numbered_pod(number), f"pod-{number}")
    told = refusal(admin, "UPDATE pod SET desired_state = 'archived'")

    assert told.message_primary == "this statement changes more than 50 pods, so it must say that it is meant"
    assert admin.execute("SELECT count(*) AS n FROM pod WHERE desired_state = 'archived'").fetchone() == {
        "n": 0
    }
    with admin.transaction():
        admin.execute("SET LOCAL codepods.bulk_ok = 'on'")
        assert admin.execute("UPDATE pod SET desired_state = 'archived'").rowcount == 52


def test_a_login_of_ones_own_keeps_its_name(
    postgres_server: TestServer, world: Database, database_name: str
) -> None:
    """Whoever is made a member and sets the role gets the desk, and the history has their own name."""
    superuser = postgres_server.url_of(database_name, "postgres")
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute("CREATE ROLE carla LOGIN PASSWORD 'secret' IN ROLE codepods_admin")
    try:
        url = postgres_server.url_of(database_name).replace("//codepods:", "//carla:")
        url = "postgresql://carla:secret@" + url.partition("@")[2]
        with psycopg.connect(url, options="-c role=codepods_admin", row_factory=dict_row) as carla:
            carla.execute("UPDATE pod SET desired_state = 'stopped'")
            event = carla.execute("SELECT actor, reason FROM event ORDER BY id DESC LIMIT 1").fetchone()
            assert event == {"actor": "carla", "reason": "changed in SQL by carla"}
            assert "an admin may not change" in str(
                refusal(carla, "UPDATE pod SET reason = 'x'").message_primary
            )
    finally:
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute("DROP ROLE carla")


# ---- the views ---------------------------------------------------------------------------------------------


def actual(admin: Connection) -> object:
    """The pod's actual state, and where, by the view."""
    row = admin.execute("SELECT actual, node_id FROM pod_status WHERE id = %s", (POD,)).fetchone()
    assert row is not None
    return row["actual"], row["node_id"]


def test_pod_status_tells_what_is(admin: Connection, world: Database) -> None:
    """A line per pod: what is desired, what is, where, since when."""
    row = admin.execute("SELECT * FROM pod_status").fetchone()

    assert row is not None
    assert list(row) == [
        *("id", "user_id", "name", "desired_state", "actual", "node_id", "since", "condition", "reason"),
        *("generation", "satisfied_generation"),
    ]
    assert (row["actual"], row["node_id"], row["desired_state"]) == ("running", NODE, "running")


@pytest.mark.parametrize(("seconds", "expected"), [(35, "running"), (45, "unknown")])
def test_a_silent_node_makes_its_pods_unknown(
    admin: Connection, world: Database, seconds: int, expected: str
) -> None:
    """After 40 s without a word nobody claims to know (LAW 6)."""
    with world.transaction() as connection:
        connection.execute(
            "UPDATE node_lease SET last_seen_at = now() - make_interval(secs => %s)", (seconds,)
        )

    assert actual(admin) == (expected, NODE)


def test_a_report_of_another_epoch_does_not_count(admin: Connection, world: Database) -> None:
    """What a node says of an earlier placement is history (LAW 5)."""
    with world.transaction() as connection:
        connection.execute("UPDATE placement SET released_at = now()")
        place(connection, epoch=2)

    assert actual(admin) == ("absent", NODE)


def test_archived_is_an_absent_pod_with_an_archive(admin: Connection, world: Database) -> None:
    """Only once its node is free of it; until then it is shown as the node sees it."""
    with world.transaction() as connection:
        add_archive(connection)
        connection.execute("UPDATE pod_observed SET state = 'stopped'")
    assert actual(admin) == ("stopped", NODE)
    with world.transaction() as connection:
        connection.execute("UPDATE pod_observed SET state = 'absent'")
        connection.execute("UPDATE placement SET released_at = now()")
    assert actual(admin) == ("archived", None)


def test_deleted_is_an_absent_pod_with_a_tombstone(admin: Connection, world: Database) -> None:
    """A tombstone alone is not yet a removal."""
    admin.execute("UPDATE pod SET desired_state = 'deleted'")
    assert actual(admin) == ("running", NODE)
    with world.transaction() as connection:
        connection.execute("UPDATE pod_observed SET state = 'absent'")
    assert actual(admin) == ("deleted", NODE)


def test_node_status_counts_what_a_node_holds(admin: Connection, world: Database) -> None:
    """Heard when, what it holds, and what is reserved on it."""
    with world.transaction() as connection:
        add_action(connection)
        add_node(connection, "node-2", seen_s_ago=60)
    rows = admin.execute(
        "SELECT id, silent, pods, running, reserved_memory_mib FROM node_status ORDER BY id"
    ).fetchall()

    assert rows == [
        {"id": NODE, "silent": False, "pods": 1, "running": 1, "reserved_memory_mib": 512},
        {"id": "node-2", "silent": True, "pods": 0, "running": 0, "reserved_memory_mib": 0},
    ]
