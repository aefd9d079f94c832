"""kill -9 of the agent right before and right after each effect of a chore, on the real parts.

Whatever is cut short is given again; users' pods and archives are as they were, and what was half written is
cleared away by the next sweep.
"""

import os
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from node_agent.archive import changes as planning
from node_agent.archive.commit import ArchiveResult, check_archive
from node_agent.archive.manifest import parse
from node_agent.archive.memory import Memory
from node_agent.directory_store import DirectoryStore
from state.alarms import open_alarms
from state.chores import make_chore
from state.compactions import COMPACT
from state.copies import make_checkpoints
from state.database import Connection, Database
from state.model import Desired, Limits
from state.scrubs import make_due_scrubs
from state.sweeps import make_due_sweeps, store_id
from tests.chaos.learners import Learner, leftovers
from tests.chaos.revival import arm, disarm, revived
from tests.property.test_archive_chain_laws import Place
from tests.support.site import Site, two_nodes, until
from tests.support.trees import differences, snapshot

MANIFEST_BYTES_MAX = 1 << 20
LONG_AGO = timedelta(days=5)
AROUND_WRITING = (
    "store.open_writer.before",
    "store.open_writer.after",
    "store.writer.write.after",
    "store.writer.commit.before",
    "store.writer.commit.after",
    "store.put_manifest.before",
    "store.put_manifest.after",
)
AROUND_PAUSING = (
    "runtime.pause.before",
    "runtime.pause.after",
    "runtime.unpause.before",
    "runtime.unpause.after",
)
# A pod is paused only if it writes while it is read: who is busy in it may not have had its turn.
PAUSE_TRIES_MAX = 20
AROUND_READING = ("store.get.after", "store.open_reader.before", "store.open_reader.after")
AROUND_DELETING = (
    "store.entries.before",
    "store.entries.after",
    "store.delete_if_same.before",
    "store.delete_if_same.after",
)


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes; chores are asked for by hand."""
    with two_nodes(db, database_url, tmp_path, checkpoint_every=0, archives_kept=1) as made:
        yield made


def do(
    site: Site, died: list[str], failpoint: str, make: Callable[[Connection], object], tries_max: int = 1
) -> None:
    """Have chores done by agents that die at the failpoint, and see to it that one did."""
    before = len(died)
    arm(site.agents, failpoint)
    for _ in range(tries_max):
        with site.db.transaction() as conn:
            assert make(conn)
        until(lambda: open_chores(site) == [], lambda: f"{failpoint}: {open_chores(site)}")
        if len(died) > before:
            break
    assert len(died) > before, f"nobody came to {failpoint}"
    disarm(site.agents)


def open_chores(site: Site) -> list[dict[str, object]]:
    """What is not over yet. None may come to nothing."""
    with site.db.transaction() as conn:
        rows = conn.execute("SELECT kind, state, attempt, error FROM chore WHERE state <> 'done'").fetchall()
    assert all(row["state"] in ("waiting", "given") for row in rows), rows
    return rows


def put_away_and_back(learner: Learner) -> None:
    """One cycle, with everything as it was."""
    learner.want(Desired.ARCHIVED)
    learner.await_archived()
    learner.want(Desired.RUNNING)
    learner.check()
    until(lambda: leftovers(learner.site, 1) == 0)


@pytest.mark.timeout(1200)
def test_a_checkpoint_that_is_cut_anywhere_holds_up_nobody_and_is_made_again(site: Site) -> None:
    """The pod goes on, never left paused; what the checkpoint made is whole; the next archive is too."""
    learner = Learner(site, "alice")
    learner.open()
    learner.write(random.Random(1))
    busy = "(while :; do echo $RANDOM >/workspaces/log; echo $RANDOM >/srv/log; done) >/dev/null 2>&1 &"
    with revived(site.agents) as died:
        for number, failpoint in enumerate((*AROUND_WRITING, *AROUND_PAUSING)):
            if failpoint == AROUND_PAUSING[0]:
                site.run_as_root(learner.pod_id, busy)
            site.run_as_root(learner.pod_id, f"echo {number} >/opt/turn-{number}")
            tries_max = PAUSE_TRIES_MAX if failpoint in AROUND_PAUSING else 1
            do(site, died, failpoint, lambda conn: make_checkpoints(conn, timedelta(0), 10), tries_max)
            until(lambda: site.answers(learner.pod_id))
    check_store(site)
    for desired in (Desired.STOPPED, Desired.RUNNING):  # who was busy in it ends with its processes
        learner.want(desired)
        site.until_is(learner.pod_id, desired)
    learner.write(random.Random(2))
    put_away_and_back(learner)


@pytest.mark.timeout(1200)
def test_a_scrub_that_is_cut_anywhere_is_done_again_and_accuses_nobody(site: Site) -> None:
    """No archive is called damaged because its reader died."""
    learner = Learner(site, "alice")
    learner.open()
    learner.write(random.Random(1))
    put_away_and_back(learner)
    with revived(site.agents) as died:
        for failpoint in AROUND_READING:
            age(site)
            do(site, died, failpoint, lambda conn: make_due_scrubs(conn, timedelta(0), timedelta(0), 10))
    assert {alarm.kind for alarm in open_alarms(site.db)} <= {"image_missing"}  # none are kept here


@pytest.mark.timeout(1200)
def test_a_sweep_that_is_cut_anywhere_clears_away_what_it_should_and_nothing_else(site: Site) -> None:
    """After the clean-up window there is in the store what archives name that are kept, and no more."""
    learner = Learner(site, "alice")
    learner.open()
    rng = random.Random(1)
    with revived(site.agents) as died:
        for failpoint in AROUND_DELETING:
            for _ in range(2):
                learner.write(rng)
                put_away_and_back(learner)
            retire_all_but_the_newest(site)
            half_made(site)
            sweep(site)  # sees what is not referred to
            if failpoint.startswith("store.entries"):
                do(site, died, failpoint, due_sweeps(site))
            else:
                age(site)
                do(site, died, failpoint, due_sweeps(site))
            for _ in range(2):
                sweep(site)
            assert objects(site) == needed(site)
    learner.write(rng)
    put_away_and_back(learner)
    assert {alarm.kind for alarm in open_alarms(site.db)} <= {"image_missing"}  # none are kept here


@pytest.mark.timeout(1200)
def test_a_compaction_that_is_cut_anywhere_leaves_the_old_archive_or_the_new(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the end it is the new one, of the same content; never something between."""
    monkeypatch.setattr(planning, "folded_from", lambda live_bytes, *_: len(live_bytes))
    learner = Learner(site, "alice")
    learner.open()
    learner.write(random.Random(1))
    put_away_and_back(learner)
    with revived(site.agents) as died:
        for number, failpoint in enumerate((*AROUND_WRITING, *AROUND_READING)):
            folder = tmp_path / f"chain-{number}"
            folder.mkdir()
            here = Place(folder, store_of(site), Memory(folder / "memory"))
            source = here.fresh("source")
            for turn in range(10):
                (source / f"file-{turn}").write_bytes(os.urandom(5000))
                (source / "always").write_bytes(b"y" * (1000 + turn))
                made = here.archive(source)
            point_at(site, made)
            do(site, died, failpoint, compaction)
            key, digest = pointed_at(site)
            manifest = check_archive(here.store, key, digest)
            assert (key != made.manifest_key, len(manifest.layers)) == (True, 1)
            again = here.restored(ArchiveResult(key, digest, manifest))
            assert differences(snapshot(source), snapshot(again)) == []


# ---- the store and the database ------------------------------------------------------------------------


def store_of(site: Site) -> DirectoryStore:
    """The store that the nodes share."""
    return DirectoryStore(site.agents[0].node.store_dir)


def objects(site: Site) -> set[str]:
    """What is in the store."""
    return set(store_of(site).list("archives/"))


def needed(site: Site) -> set[str]:
    """What the archives that are kept name."""
    store, found = store_of(site), set()
    with site.db.transaction() as conn:
        rows = conn.execute("SELECT manifest_key FROM archive WHERE retired_at IS NULL").fetchall()
    for row in rows:
        manifest = parse(store.get(row["manifest_key"], MANIFEST_BYTES_MAX))
        found |= {row["manifest_key"], *(blob.key for blob in manifest.blobs)}
    return found


def check_store(site: Site) -> None:
    """Every archive that the database names is whole."""
    with site.db.transaction() as conn:
        rows = conn.execute("SELECT manifest_key, manifest_digest FROM archive").fetchall()
    assert rows
    for row in rows:
        check_archive(store_of(site), row["manifest_key"], row["manifest_digest"])


def half_made(site: Site) -> None:
    """A blob as an upload leaves it that died before its manifest."""
    with site.db.transaction() as conn:
        (row,) = conn.execute("SELECT id FROM pod").fetchall()
    with store_of(site).open_writer(f"archives/pod/{row['id']}/1-999999/tree.tar.zst") as writer:
        writer.write(b"half")
        writer.commit()


def retire_all_but_the_newest(site: Site) -> None:
    """As retention does by the clock."""
    with site.db.transaction() as conn:
        conn.execute(
            """
            UPDATE archive a SET retired_at = now() WHERE retired_at IS NULL
               AND NOT EXISTS (SELECT 1 FROM pod WHERE archive_id = a.id)
               AND NOT EXISTS (SELECT 1 FROM workspace WHERE archive_id = a.id)
            """
        )


def age(site: Site) -> None:
    """Days go by, in the store and in the database."""
    for path in site.agents[0].node.store_dir.rglob("*"):
        if path.is_file():
            at = path.stat().st_mtime - LONG_AGO.total_seconds()
            os.utime(path, (at, at))
    tables = {
        "sweep_candidate": ("first_seen_at",),
        "archive": ("committed_at", "retired_at", "whole_at"),
        "chore": ("finished_at",),
    }
    with site.db.transaction() as conn:
        for table, columns in tables.items():
            moved = ", ".join(f"{column} = {column} - %(by)s" for column in columns)
            conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")  # type: ignore[arg-type]
            conn.execute(f"UPDATE {table} SET {moved}", {"by": LONG_AGO})  # type: ignore[arg-type]
            conn.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")  # type: ignore[arg-type]


def due_sweeps(site: Site) -> Callable[[Connection], object]:
    """Sweeps of everything, now."""

    def make(conn: Connection) -> object:
        conn.execute("UPDATE store_target SET sweep_at = now() - interval '1 s'")
        return make_due_sweeps(conn, Limits(), 20)

    return make


def sweep(site: Site) -> None:
    """One that nothing happens to, days after the last."""
    age(site)
    with site.db.transaction() as conn:
        due_sweeps(site)(conn)
    until(lambda: open_chores(site) == [], lambda: str(open_chores(site)))


def compaction(conn: Connection) -> object:
    """The chore, as the clock makes it."""
    row = conn.execute("SELECT * FROM archive WHERE target_kind = 'workspace'").fetchone()
    assert row is not None
    conn.execute("DELETE FROM chore WHERE kind = 'compact'")
    request = {
        "store_id": store_id(conn),
        "manifest_key": row["manifest_key"],
        "manifest_digest": row["manifest_digest"],
    }
    of_what = {"workspace_id": row["target_id"]}
    return make_chore(conn, COMPACT, row["id"], request, made_by="test", **of_what)


def point_at(site: Site, made: ArchiveResult) -> None:
    """The only archive of the user's files is this chain."""
    with site.db.transaction() as conn:
        conn.execute("ALTER TABLE archive DISABLE TRIGGER USER")
        conn.execute(
            "UPDATE archive SET manifest_key = %s, manifest_digest = %s WHERE target_kind = 'workspace'",
            (made.manifest_key, made.manifest_digest),
        )
        conn.execute("ALTER TABLE archive ENABLE TRIGGER USER")


def pointed_at(site: Site) -> tuple[str, str]:
    """Where the archive of the user's files is now."""
    with site.db.transaction() as conn:
        row = conn.execute("SELECT * FROM archive WHERE target_kind = 'workspace'").fetchone()
    assert row is not None
    return row["manifest_key"], row["manifest_digest"]
