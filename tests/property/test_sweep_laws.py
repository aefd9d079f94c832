"""Clearing away, by the real handlers on a real directory store: nothing that is needed ever goes.

A small model of the database holds the archives; uploads, commits, retirements, restores and two workers'
sweeps happen in any order, with requests that are carried out late, by whom time has passed (files are made
older).
"""

import hashlib
import os
import tempfile
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from node_agent.archive import manifest as manifests
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.chores import Budget, ChoreContext, ChoreError
from node_agent.directory_store import DirectoryStore
from node_agent.sweep import REQUEST_AGE_S_MAX, sweep
from state.chore_wire import Chore, Payload
from state.model import TargetKind

HOUR_S = 3600.0
MIN_AGE_S, CONFIRM_S = 72 * HOUR_S, 24 * HOUR_S
TARGET, STORE_ID = "p-aaaaaaaaaaaa", "installation-1"
NOW = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass
class Upload:
    """An attempt to archive: what it has written so far, and what its manifest will name."""

    number: int
    attempt: int
    blobs: tuple[BlobRef, ...]
    manifest_key: str = ""
    manifest_digest: str = ""
    age_s: float = 0.0
    retired_s: float | None = None


@dataclass
class World:
    """The store, and the model of the database."""

    root: Path
    uploads: dict[int, Upload] = field(default_factory=dict)
    archives: list[Upload] = field(default_factory=list)
    attempts: int = 0
    seen_s: dict[str, float] = field(default_factory=dict)
    clock_s: float = 0.0

    @property
    def store(self) -> DirectoryStore:
        """A new one each time: nothing is remembered."""
        return DirectoryStore(self.root)

    def context(self, request: Payload, age_s: float = 0.0) -> ChoreContext:
        """What the handler is called with."""
        chore = Chore(id="c", attempt=1, kind="sweep", subject="s", request=request, age_s=age_s)
        return ChoreContext(self.store, chore, Budget(1 << 40), threading.Event(), lambda *_: None)

    def put_blob(self, attempt: int, name: str) -> BlobRef:
        """Write one blob."""
        data = f"{attempt}/{name}".encode() * 10
        key = manifests.blob_key(TargetKind.POD, TARGET, 1, attempt, name)
        with self.store.open_writer(key) as writer:
            writer.write(data)
            writer.commit()
        digest = hashlib.sha256(data).hexdigest()
        return BlobRef(key=key, size_bytes=len(data), sha256=digest, tar_bytes=10, live_bytes=10)

    def put_manifest(self, upload: Upload) -> None:
        """Write its manifest."""
        index = ()
        if len(upload.blobs) > 1:
            blob = self.put_blob(upload.attempt, "index.zst")
            index = (blob.model_copy(update={"role": "index", "media_type": manifests.INDEX_ZSTD}),)
        manifest = Manifest(
            kind=TargetKind.POD,
            target_id=TARGET,
            user_id="alice",
            epoch=1,
            attempt=upload.attempt,
            number=upload.number,
            created_at=NOW,
            fingerprint={},
            method="overlay2-upper",
            blobs=(*upload.blobs, *index),
            entries=1,
        )
        upload.blobs = manifest.blobs
        key = manifests.manifest_key(TargetKind.POD, TARGET, 1, upload.attempt)
        data = manifests.to_bytes(manifest)
        self.store.put_manifest(key, data)
        upload.manifest_key, upload.manifest_digest = key, manifests.digest(data)

    def pass_time(self, seconds: float) -> None:
        """All that is there grows older."""
        self.clock_s += seconds
        for path in self.root.rglob("*"):
            if path.is_file():
                found = path.stat()
                os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - int(seconds * 1e9)))

    def request(self, *, gone: bool = False, **changes: Any) -> Payload:
        """As state.sweeps makes it."""
        kept = [
            one for one in self.archives if one.retired_s is None or self.clock_s - one.retired_s < MIN_AGE_S
        ]
        doomed = [key for key, since in self.seen_s.items() if self.clock_s - since > CONFIRM_S]
        made = {
            "store_id": STORE_ID,
            "kind": "pod",
            "target_id": TARGET,
            "kept": [{"key": one.manifest_key, "digest": one.manifest_digest} for one in kept],
            "known": [one.manifest_key for one in self.archives],
            "newest": max((one.number for one in self.archives), default=0),
            "gone": gone,
            "doomed": doomed,
            "min_age_s": MIN_AGE_S,
            "share_max": 1.0,
        }
        return made | changes

    def note(self, result: Payload) -> None:
        """As state.sweeps does with what a sweep saw."""
        keys = [line["key"] for line in result["candidates"]]
        self.seen_s = {key: self.seen_s.get(key, self.clock_s) for key in keys}

    def objects(self) -> set[str]:
        """All that is in the store."""
        return set(self.store.list("archives/"))


@settings(max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
class Sweeping(RuleBasedStateMachine):
    """Everybody at once."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="lane-c-sweep-")
        self.world = World(Path(self._folder.name))
        self.requests: list[tuple[float, Payload]] = []

    def teardown(self) -> None:
        """Nothing stays."""
        self._folder.cleanup()

    @initialize()
    def first(self) -> None:
        """A first archive."""
        self.begin(False)
        self.commit()

    @rule(chained=st.booleans())
    def begin(self, chained: bool) -> None:
        """An upload: whole, or on top of the newest archive's blobs."""
        world = self.world
        world.attempts += 1
        base: tuple[BlobRef, ...] = ()
        if chained and world.archives:
            base = tuple(blob for blob in world.archives[-1].blobs if blob.role == "tree")[-3:]
        number = world.archives[-1].number + 1 if world.archives else 1
        blob = world.put_blob(world.attempts, "tree.tar.zst")
        world.uploads[world.attempts] = Upload(number, world.attempts, (*base, blob))

    @precondition(lambda self: self.world.uploads)
    @rule()
    def commit(self) -> None:
        """The manifest, then the database; a later attempt at the same number wins."""
        upload = self.world.uploads.pop(max(self.world.uploads))
        if not upload.manifest_key:
            self.world.put_manifest(upload)
        if not self.world.archives or upload.number > self.world.archives[-1].number:
            self.world.archives.append(upload)

    @precondition(lambda self: self.world.uploads)
    @rule()
    def write_the_manifest_only(self) -> None:
        """The agent is cut off, or the database has lost the commit: it is told of much later."""
        upload = self.world.uploads[max(self.world.uploads)]
        if not upload.manifest_key:
            self.world.put_manifest(upload)

    @precondition(lambda self: self.world.uploads)
    @rule()
    def die(self) -> None:
        """An upload that nobody goes on with."""
        self.world.uploads.pop(min(self.world.uploads))

    @rule(keep=st.integers(1, 3))
    def retire(self, keep: int) -> None:
        """All but the newest few."""
        for archive in self.world.archives[:-keep]:
            if archive.retired_s is None:
                archive.retired_s = self.world.clock_s

    @rule(hours=st.sampled_from([0.5, 2, 30, 80]))
    def wait(self, hours: float) -> None:
        """No upload lasts longer than the least age; those that would are given up."""
        self.world.pass_time(hours * HOUR_S)
        for attempt, upload in list(self.world.uploads.items()):
            upload.age_s += hours * HOUR_S
            if upload.age_s > MIN_AGE_S - HOUR_S and not upload.manifest_key:
                del self.world.uploads[attempt]

    @rule()
    def ask(self) -> None:
        """A sweep's request is made; whoever takes it may be late."""
        self.requests.append((self.world.clock_s, self.world.request()))

    @precondition(lambda self: self.requests)
    @rule(last=st.booleans())
    def sweep(self, last: bool) -> None:
        """One of two workers carries one out."""
        made_s, request = self.requests.pop(-1 if last else 0)
        age_s = self.world.clock_s - made_s
        if age_s < REQUEST_AGE_S_MAX:
            self.world.note(sweep(self.world.context(request, age_s)))
            return
        with pytest.raises(ChoreError, match="too old"):
            sweep(self.world.context(request, age_s))

    @invariant()
    def what_is_needed_is_there(self) -> None:
        """Every archive that is kept, and everything that an upload under way has written or will name."""
        there = self.world.objects()
        kept = [one for one in self.world.archives if one.retired_s is None]
        newest = self.world.archives[-1].number if self.world.archives else 0
        # One that comes after a newer archive is refused by the database, whenever it comes.
        coming = [
            one
            for one in self.world.uploads.values()
            if one.number > newest or one.age_s < MIN_AGE_S - HOUR_S
        ]
        for one in (*kept, *coming):
            needed = {blob.key for blob in one.blobs} | ({one.manifest_key} - {""})
            assert needed <= there, f"attempt {one.attempt} has lost {sorted(needed - there)}"


TestSweeping = Sweeping.TestCase


@pytest.fixture
def world(tmp_path: Path) -> World:
    """With three archives, of which the first is retired, and a leftover."""
    made = World(tmp_path)
    for number in (1, 2, 3):
        made.attempts += 1
        upload = Upload(number, number, (made.put_blob(number, "tree.tar.zst"),))
        made.put_manifest(upload)
        made.archives.append(upload)
    made.archives[0].retired_s = 0.0
    made.put_blob(9, "tree.tar.zst")
    return made


def settled(world: World) -> list[str]:
    """Two sweeps at two times apart; what went."""
    world.pass_time(MIN_AGE_S + HOUR_S)
    first = sweep(world.context(world.request()))
    assert first["deleted"] == []
    world.note(first)
    world.pass_time(CONFIRM_S + HOUR_S)
    return list(sweep(world.context(world.request()))["deleted"])


def test_what_no_archive_needs_goes_at_the_second_look(world: World) -> None:
    """A retired archive, manifest first, and what a dead upload left; nothing else (I11)."""
    keys = [one.manifest_key for one in world.archives]
    deleted = settled(world)
    assert deleted[0] == keys[0]
    assert len(deleted) == 3
    assert world.objects() == {
        key for one in world.archives[1:] for key in (one.manifest_key, one.blobs[0].key)
    }
    assert sweep(world.context(world.request()))["candidates"] == []


def test_what_is_young_is_not_even_a_candidate(world: World) -> None:
    """It may be of an upload that is under way, whoever else has seen it."""
    result = sweep(world.context(world.request(doomed=sorted(world.objects()))))
    assert (result["candidates"], result["deleted"], result["young"] > 0) == ([], [], True)


def test_a_retired_archives_blob_that_a_kept_one_names_stays(world: World) -> None:
    """Chains lie under several attempts' prefixes."""
    base = world.archives[0].blobs
    chained = Upload(4, 4, (*base, world.put_blob(4, "tree.tar.zst")))
    world.put_manifest(chained)
    world.archives.append(chained)
    assert base[0].key not in settled(world)
    assert base[0].key in world.objects()


REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("store_of_another", {"store_id": "installation-2"}),
    ("none_kept", {"kept": [], "known": [], "newest": 9}),
    ("archive_corrupt", {"kept": [{"key": f"archives/pod/{TARGET}/1-2/manifest.json", "digest": "0" * 64}]}),
    ("too_much", {"share_max": 0.01}),
]


@pytest.mark.parametrize(("code", "changes"), REFUSALS)
def test_any_doubt_about_what_is_alive_deletes_nothing(
    world: World, code: str, changes: dict[str, Any]
) -> None:
    """Another database, an empty list, a manifest that differs, too much at once (LAW 9)."""
    sweep(world.context(world.request()))
    before = world.objects()
    world.pass_time(MIN_AGE_S + HOUR_S)
    everything = sorted(before)
    with pytest.raises(ChoreError) as refused:
        sweep(world.context(world.request(doomed=everything, **changes)))
    assert (refused.value.code, refused.value.permanent) == (code, True)
    assert world.objects() == before


def test_a_missing_blob_stops_everything(world: World) -> None:
    """Then it is not known what else is not as it should be."""
    world.store.delete(world.archives[2].blobs[0].key)
    world.pass_time(MIN_AGE_S + HOUR_S)
    with pytest.raises(ChoreError) as refused:
        sweep(world.context(world.request(doomed=sorted(world.objects()))))
    assert refused.value.code == "object_missing"


def test_an_old_request_is_not_acted_upon(world: World) -> None:
    """What it says of the archives may not be so any more."""
    with pytest.raises(ChoreError) as refused:
        sweep(world.context(world.request(), age_s=2 * HOUR_S))
    assert refused.value.code == "stale"


def test_a_whole_archive_that_the_database_does_not_know_is_kept_and_told(world: World) -> None:
    """Its commit was lost with a failover, or is still to come: newer than all that is known, it stays."""
    world.archives, lost = world.archives[:2], world.archives[2]
    deleted = settled(world)
    assert not {lost.manifest_key, lost.blobs[0].key} & set(deleted)
    assert sweep(world.context(world.request()))["unknown"] == [lost.manifest_key]


def test_a_deleted_pods_archives_go_whole(world: World) -> None:
    """By its tombstone, and only by that."""
    for archive in world.archives:
        archive.retired_s = 0.0
    world.pass_time(2 * MIN_AGE_S)
    world.note(sweep(world.context(world.request(gone=True))))
    world.pass_time(CONFIRM_S + HOUR_S)
    sweep(world.context(world.request(gone=True)))
    assert world.objects() == set()
