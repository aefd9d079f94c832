"""Two attempts at one target at once, also in a store without conditions: one counts, none is lost."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node_agent.archive.commit import ArchiveResult, check_archive, write_archive
from node_agent.archive.errors import ArchiveConflict
from node_agent.open_store import open_store
from node_agent.store import Store, StoreConflict
from state.archives import commit_archive
from state.model import Desired
from state.wire import ArchiveMade
from tests.integration.test_store_resume import REQUEST, server
from tests.support.control import Control
from tests.support.s3_servers import BUCKET, CREDENTIALS

RACERS = 4


def race(work: Callable[[int], Any]) -> list[Any]:
    """What each of them got, begun at the same moment."""
    barrier = threading.Barrier(RACERS)

    def run(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(RACERS) as threads:
        return list(threads.map(run, range(RACERS)))


def sources(folder: Path) -> list[Path]:
    """A tree for each racer, all different."""
    made = [folder / f"source-{number}" for number in range(RACERS)]
    for number, source in enumerate(made):
        source.mkdir()
        (source / "whose").write_text(f"racer {number}")
    return made


@pytest.mark.parametrize("kind", ["moto", "rclone"])
def test_of_racing_attempts_one_counts_and_all_are_whole(
    kind: str, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys carry the attempt, so no racer touches another's objects; the database takes one of them."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    pod_id = control.pod("alice")
    control.want(pod_id, Desired.RUNNING)
    control.settle(control.join("node-1"))
    placed = control.row("SELECT workspace_id, epoch FROM placement WHERE released_at IS NULL")
    request = replace(REQUEST, target_id=placed["workspace_id"], epoch=placed["epoch"])
    trees = sources(tmp_path)
    with server(kind, tmp_path) as endpoint:
        store = open_store(f"s3://{BUCKET}/site?endpoint={endpoint}")
        made = race(lambda n: write_archive(store, replace(request, attempt=50 + n), trees[n]))
        counted = race(lambda n: commit(control, placed, made[n]))

        for one in made:
            assert check_archive(store, one.manifest_key, one.manifest_digest) == one.manifest
    [winner] = [number for number, archive_id in enumerate(counted) if archive_id]
    kept = control.row("SELECT manifest_key FROM archive WHERE target_id = %s", placed["workspace_id"])
    assert kept["manifest_key"] == made[winner].manifest_key


def commit(control: Control, placed: dict[str, Any], made: ArchiveResult) -> str | None:
    """As results of a node's actions are taken in: under the workspace's lock."""
    action = {
        "target_kind": "workspace",
        "target": placed["workspace_id"],
        "workspace_id": placed["workspace_id"],
        "node_id": "node-1",
        "epoch": placed["epoch"],
        "attempt": made.manifest.attempt,
        "step": {"number": 1},
    }
    told = ArchiveMade(
        manifest_key=made.manifest_key,
        manifest_digest=made.manifest_digest,
        fingerprint="f",
        size_bytes=made.manifest.size_bytes,
    )
    with control.db.transaction() as conn:
        conn.execute("SELECT 1 FROM workspace WHERE id = %s FOR NO KEY UPDATE", (placed["workspace_id"],))
        return commit_archive(conn, action, told)


@pytest.mark.parametrize("kind", ["moto", "rclone"])
def test_a_second_run_of_one_attempt_never_changes_what_the_first_committed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What must not happen, one attempt used for two sources: the first to commit stands, whole."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    trees = sources(tmp_path)
    with server(kind, tmp_path) as endpoint:
        store: Store = open_store(f"s3://{BUCKET}/site?endpoint={endpoint}")
        first = write_archive(store, REQUEST, trees[0])
        for tree in trees[1:]:
            with pytest.raises((ArchiveConflict, StoreConflict)):
                write_archive(store, replace(REQUEST, fingerprint={"tree": str(tree)}), tree)
        assert check_archive(store, first.manifest_key, first.manifest_digest) == first.manifest
