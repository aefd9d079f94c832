"""Scrubs and sweeps from the database to the store and back: the real chores, on a real store, by hand."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node_agent.archive.manifest import BlobRef, Manifest, blob_key, manifest_key, parse, to_bytes
from node_agent.chore_kinds import HANDLERS
from node_agent.chores import ChoreRunner
from node_agent.directory_store import DirectoryStore
from node_agent.store import Store
from node_agent.sweep import INSTALLATION_KEY
from reconciler.chores import attend_chores, attend_retention
from state import chores, streams
from state.alarms import open_alarms
from state.chore_kinds import APPLIES
from state.copy_wire import IMPORT_ATTEMPTS_FROM
from state.generations import list_generations
from state.model import Desired, ImportForm, Limits, TargetKind
from state.snapshot import database_clock
from tests.support.aged_store import AgedStore
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode
from tests.support.stored_archives import StoringNode

LONG = timedelta(days=40)


class Installation:
    """A control plane by hand, a node that writes real archives into a real store, and its chores."""

    def __init__(self, control: Control, root: Path, aged: AgedStore | None = None) -> None:
        """`aged`: a store elsewhere than in `root`."""
        self.control = control
        self.root = root
        self._aged = aged
        self.store: Store = aged or DirectoryStore(root)
        control.join("node-1")
        self.node: ScriptedNode = StoringNode("node-1", boot_id="boot-2", store=self.store)
        self.pod_id = control.pod("alice")

    def put_away(self, times: int = 1) -> None:
        """Open and archive, so often."""
        for _ in range(times):
            self.control.want(self.pod_id, Desired.RUNNING)
            self.control.settle(self.node)
            self.control.want(self.pod_id, Desired.ARCHIVED)
            self.control.settle(self.node)

    def older(self, by: timedelta) -> None:
        """Time passes, in the store and in the database."""
        if self._aged is not None:
            self._aged.older(by)
        for path in self.root.rglob("*"):
            if path.is_file():
                at = path.stat().st_mtime - by.total_seconds()
                os.utime(path, (at, at))
        tables = {
            "store_target": ("check_at", "sweep_at"),
            "sweep_candidate": ("first_seen_at",),
            "archive": ("committed_at", "retired_at", "whole_at", "suspect_at"),
            "chore": ("created_at", "finished_at"),
        }
        with self.control.db.transaction() as connection:
            for table, columns in tables.items():
                moved = ", ".join(f"{column} = {column} - %(by)s" for column in columns)
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")  # type: ignore[arg-type]
                connection.execute(f"UPDATE {table} SET {moved}", {"by": by})  # type: ignore[arg-type]
                connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")  # type: ignore[arg-type]

    def attend(self, limits: Limits | None = None) -> list[str]:
        """The reconciler's clock, and then a node; the kinds of the chores that it did."""
        control = self.control
        now = database_clock(control.db)
        attend_retention(control.db, limits or control.limits, control.leading, now)
        attend_chores(control.db, limits or control.limits, control.leading)
        return self.do_chores()

    def do_chores(self) -> list[str]:
        """A node that does all chores; their kinds."""
        control = self.control
        done: list[str] = []
        runner = ChoreRunner(
            self.store, HANDLERS, at_once_max=5, bytes_per_s_max=1 << 40, changed=lambda: None
        )
        for _ in range(20):
            accepted = chores.take_in(control.db, "node-1", runner.up(), APPLIES, control.limits)
            runner.down(chores.news(control.db, "node-1", runner.up(), accepted))
            while (work := runner.take_now()) is not None:
                runner.do(work)
                done.append(work.chore.kind)
            if not runner.up().held:
                break
        return sorted(done)

    def objects(self) -> set[str]:
        """What is in the store."""
        return set(self.store.list("archives/"))

    def needed(self) -> set[str]:
        """What the archives that can be gone back to name."""
        found: set[str] = set()
        for row in self.control.rows("SELECT manifest_key FROM archive WHERE retired_at IS NULL"):
            manifest = parse(self.store.get(row["manifest_key"], 1 << 20))
            found |= {row["manifest_key"], *(blob.key for blob in manifest.blobs)}
        return found

    def alarms(self) -> set[str]:
        """The kinds of what is open."""
        return {alarm.kind for alarm in open_alarms(self.control.db)}


@pytest.fixture
def installation(control: Control, tmp_path: Path) -> Installation:
    """With an empty store."""
    return Installation(control, tmp_path / "store")


def test_old_archives_leave_the_store_in_their_time(installation: Installation) -> None:
    """Retired at once, seen unreferenced after days, gone a day later; what is kept can all be restored."""
    installation.put_away(8)
    before = installation.objects()
    assert "tidy" in installation.attend()
    assert installation.store.get(INSTALLATION_KEY, 100)
    assert installation.objects() == before
    installation.older(timedelta(days=4))
    assert installation.attend().count("sweep") == 2
    assert installation.objects() == before
    installation.older(timedelta(days=2))
    installation.attend()
    assert installation.objects() == installation.needed() < before
    assert len(list_generations(installation.control.db, installation.pod_id)) == 10
    assert installation.control.events("swept")
    assert installation.alarms() == set()
    installation.put_away()
    assert installation.node.pods == {}


def test_what_was_retired_right_before_a_sweep_goes_as_well(installation: Installation) -> None:
    """A sweep that kept something only for now is made again, also if nothing is ever archived again."""
    installation.put_away(8)
    for _ in range(4):
        installation.older(timedelta(days=4))
        installation.attend()
    assert installation.objects() == installation.needed()


def test_another_installations_store_is_never_cleared_in(installation: Installation) -> None:
    """A wrong connection string, to either: nothing goes, and an alarm says which to look at (LAW 9)."""
    installation.put_away(8)
    installation.store.put_manifest(INSTALLATION_KEY, b"another-installation")
    before = installation.objects()
    for _ in range(3):
        installation.attend()
        installation.older(timedelta(days=4))
    assert installation.objects() == before
    assert "sweep_parked" in installation.alarms()


def test_a_flipped_bit_is_found_told_and_forgotten_once_it_is_put_right(installation: Installation) -> None:
    """By reading everything back from time to time."""
    installation.put_away(2)
    installation.older(LONG)
    assert installation.attend().count("scrub") == 4
    assert installation.alarms() == set()
    assert installation.attend().count("scrub") == 0

    blob = next(path for path in sorted(installation.root.rglob("tree.tar.zst")) if "/pod/" in str(path))
    whole = blob.read_bytes()
    blob.write_bytes(b"?" + whole[1:])
    installation.older(LONG)
    installation.attend()
    assert installation.alarms() == {"archive_suspect"}
    damaged = [
        one for one in list_generations(installation.control.db, installation.pod_id) if one.suspect_at
    ]
    assert [(one.target_kind, one.number) for one in damaged] == [("pod", 1)]

    blob.write_bytes(whole)
    installation.older(timedelta(days=2))
    installation.attend()
    assert installation.alarms() == set()


def test_a_sweep_that_meets_a_damaged_archive_says_so_and_deletes_nothing(installation: Installation) -> None:
    """What is alive is not known then."""
    installation.put_away(8)
    installation.attend()
    installation.older(timedelta(days=4))
    installation.attend()
    newest = installation.control.row(
        "SELECT manifest_key FROM archive WHERE target_kind = 'pod' ORDER BY number DESC LIMIT 1"
    )
    (installation.root / newest["manifest_key"]).write_bytes(b"{}")
    before = installation.objects()
    installation.older(timedelta(days=2))
    installation.attend()
    assert {key for key in before - installation.objects() if "/pod/" in key} == set()
    assert {"sweep_parked", "archive_suspect"} <= installation.alarms()


def test_what_an_import_left_that_was_cut_goes_though_nothing_was_ever_archived(
    installation: Installation,
) -> None:
    """Its node was killed, whoever sent it has gone: no archive, no step, and nobody else to look."""
    control = installation.control
    asked = streams.ask_import(control.db, installation.pod_id, ImportForm.TAR, actor="test")
    chores.cancel_chore(control.db, asked.chore_id, actor="test", reason="gone")
    workspace = control.row("SELECT workspace_id AS id FROM pod")["id"]
    where = (TargetKind.WORKSPACE, workspace, 0, IMPORT_ATTEMPTS_FROM + 5)
    installation.store.put_manifest(blob_key(*where, "tree.tar.zst"), b"tree")
    blob = BlobRef(key=blob_key(*where, "tree.tar.zst"), size_bytes=4, sha256="0" * 64, tar_bytes=10)
    manifest = Manifest(
        kind=TargetKind.WORKSPACE,
        target_id=workspace,
        user_id="alice",
        epoch=0,
        attempt=where[3],
        number=0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        fingerprint={"imported": "x"},
        method="volume",
        blobs=(blob,),
        entries=1,
    )
    installation.store.put_manifest(manifest_key(*where), to_bytes(manifest))
    assert len(installation.objects()) == 2
    for _ in range(8):
        installation.older(timedelta(hours=30))
        installation.attend()
    assert installation.objects() == set()
    assert installation.alarms() == set()
