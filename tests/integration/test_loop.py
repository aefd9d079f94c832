"""Real reconciler processes and nodes that speak to them over HTTP, from a wish to a settled pod."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from state import nodes
from state.database import Database
from state.embedded import SUPERUSER
from state.model import Desired
from tests.support.control import Control, is_settled, new_pod, want
from tests.support.postgres import TestServer
from tests.support.reconciler_process import CHECKOUT, ReconcilerProcess, reconciler_process
from tests.support.scripted_node import HttpNode

TOKEN = "token-of-a-node"
LONG_S = 20
BIRTH = ["create_workspace", "create_pod", "start_pod"]


@pytest.fixture
def reconciler(database_url: str) -> Iterator[ReconcilerProcess]:
    """One that leads, or is about to."""
    with reconciler_process(database_url, archive_grace=0.1) as process:
        yield process


def join(db: Database, process: ReconcilerProcess, node_id: str = "node-1") -> HttpNode:
    """A new node, heard from once."""
    nodes.register(db, node_id, TOKEN)
    node = HttpNode(node_id, TOKEN, process.url)
    node.sync()
    return node


def settle(db: Database, pod_id: str, node: HttpNode) -> list[str]:
    """Work until the pod is as desired; the verbs, in order."""
    return node.work_until(lambda: is_settled(db, pod_id))


def test_a_wish_becomes_a_running_pod_and_an_archive_and_a_running_pod(
    db: Database, reconciler: ReconcilerProcess
) -> None:
    """The whole way round, in the order that keeps everything safe."""
    node = join(db, reconciler)
    pod_id = new_pod(db, "alice")

    assert settle(db, pod_id, node) == BIRTH
    want(db, pod_id, Desired.STOPPED)
    assert settle(db, pod_id, node) == ["stop_pod"]
    want(db, pod_id, Desired.ARCHIVED)
    away = ["archive_pod", "remove_pod", "archive_workspace", "remove_workspace"]
    assert node.work_until(lambda: not node.volumes and is_settled(db, pod_id)) == away
    want(db, pod_id, Desired.RUNNING)
    assert settle(db, pod_id, node) == ["restore_workspace", "restore_pod", "start_pod"]


def test_an_edit_in_psql_wakes_the_loop(db: Database, reconciler: ReconcilerProcess, admin_url: str) -> None:
    """An admin's UPDATE reaches the node like a call of the API."""
    node = join(db, reconciler)
    pod_id = new_pod(db, "alice")
    settle(db, pod_id, node)

    with psycopg.connect(admin_url) as admin:
        admin.execute("UPDATE pod SET desired_state = 'stopped' WHERE user_id = 'alice'")

    (action,) = node.sync(wait_s=LONG_S).actions
    assert action.step.verb == "stop_pod"


def test_a_wish_is_found_with_the_bells_off(db: Database, reconciler: ReconcilerProcess) -> None:
    """A notification only says look sooner; the poll finds the same work (LAW 1)."""
    with db.transaction() as conn:
        conn.execute("ALTER TABLE pod DISABLE TRIGGER pod_ring")
    node = join(db, reconciler)

    assert settle(db, new_pod(db, "alice"), node) == BIRTH


def test_a_wish_whose_turn_was_lost_is_found_by_the_resync(db: Database, database_url: str) -> None:
    """Even with nothing marked as due, a new leader walks through everything (LAW 1)."""
    pod_id = new_pod(db, "alice")
    with db.transaction() as conn:
        conn.execute("UPDATE pod SET next_check_at = NULL")
    with reconciler_process(database_url) as process:
        assert settle(db, pod_id, join(db, process)) == BIRTH


def test_two_reconcilers_at_once_do_everything_once(db: Database, database_url: str) -> None:
    """Nodes may call either; each target gets one action at a time, and each step is done once."""
    with reconciler_process(database_url) as one, reconciler_process(database_url) as other:
        first, second = join(db, one, "node-1"), join(db, other, "node-2")
        pods = [new_pod(db, f"user-{number}") for number in range(10)]
        verbs = []
        for _ in range(100):
            for node in (first, second):
                node.sync(wait_s=0.05)
                verbs += node.perform()
            if all(is_settled(db, pod_id) for pod_id in pods):
                break

    assert sorted(verbs) == sorted(BIRTH * 10)
    with db.transaction() as conn:
        rows = conn.execute("SELECT max(attempt) AS most FROM action GROUP BY target").fetchall()
    assert sorted(row["most"] for row in rows) == [1] * 10 + [2] * 10


def test_when_the_leader_is_killed_another_takes_over(db: Database, database_url: str) -> None:
    """Its lease runs out; what it left half done is done."""
    with reconciler_process(database_url) as leader:
        leader.wait_for("leading")
        with reconciler_process(database_url) as heir:
            node = join(db, heir)
            pod_id = new_pod(db, "alice")
            node.sync(wait_s=LONG_S)
            leader.kill()

            assert settle(db, pod_id, node)[-1] == "start_pod"
            assert heir.wait_for("leading")["term"] == 2


def test_a_leader_that_is_asked_to_stop_hands_over(db: Database, database_url: str) -> None:
    """It answers those who wait, resigns, and ends with 0; the next need not wait for the lease."""
    with reconciler_process(database_url) as leader:
        leader.wait_for("leading")
        node = join(db, leader)
        body = node.request(wait_s=LONG_S).model_dump_json()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(node.post, body)
            while httpx.get(f"{leader.url}/healthz").json()["nodes_waiting"] == 0:
                pass
            assert leader.stop() == 0
            assert waiting.result().status_code == 200
        assert leader.wait_for("leadership_resigned")["term"] == 1
    with db.transaction() as conn:
        row = conn.execute("SELECT expires_at <= clock_timestamp() AS free FROM leader").fetchone()
    assert row == {"free": True}


def test_the_database_may_go_away_and_come_back(
    postgres_server: TestServer, db: Database, database_name: str, database_url: str
) -> None:
    """Nodes are told to try again, the process lives, and goes on where it was."""
    with reconciler_process(database_url) as process:
        node = join(db, process)
        pod_id = new_pod(db, "alice")
        settle(db, pod_id, node)
        allow(postgres_server, database_name, False)
        refused = node.post(node.request().model_dump_json())
        process.wait_for("database_away")
        allow(postgres_server, database_name, True)
        want(db, pod_id, Desired.STOPPED)

        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        while node.post(node.request().model_dump_json()).status_code != 200:
            pass
        assert settle(db, pod_id, node) == ["stop_pod"]


def allow(server: TestServer, database: str, allowed: bool) -> None:
    """Let connections in, or throw all out and refuse new ones."""
    with psycopg.connect(server.postgres.url_of(SUPERUSER, "postgres"), autocommit=True) as superuser:
        superuser.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS {allowed}")  # type: ignore[call-overload]
        if not allowed:
            superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,)
            )


def command(database_url: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    environment = {"PATH": os.environ["PATH"], "CODEPODS_DATABASE_URL": database_url, **settings}
    return subprocess.run(
        [sys.executable, "-m", "reconciler.main", *arguments],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_dry_run_prints_the_plan(control: Control, database_url: str) -> None:
    """As JSON; nothing is done."""
    control.join("node-1")
    control.pod("alice")

    result = command(database_url, "--once", "--dry-run")

    assert result.returncode == 0, result.stderr
    (place,) = json.loads(result.stdout)["places"]
    assert (place["node_id"], place["epoch_before"]) == ("node-1", 0)
    assert control.rows("SELECT * FROM placement") == []


@pytest.mark.parametrize(
    ("settings", "code", "word"),
    [
        ({"CODEPODS_GATEWAY_PORT": "http"}, 2, "CODEPODS_GATEWAY_PORT"),
        ({"CODEPODS_ARCHIVE_GRACE": "-1"}, 2, "CODEPODS_ARCHIVE_GRACE"),
        ({"CODEPODS_GATEWAY_HOST": "192.0.2.1"}, 1, "CODEPODS_GATEWAY_HOST"),
    ],
)
def test_a_wrong_setting_is_said_in_one_line(
    database_url: str, settings: dict[str, str], code: int, word: str
) -> None:
    """With the name of what to change."""
    result = command(database_url, **settings)

    assert result.returncode == code
    assert word in result.stderr
    assert "Traceback" not in result.stderr
