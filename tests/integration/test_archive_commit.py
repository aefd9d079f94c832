"""The order of an archive: a crash anywhere leaves the old state or the new one, and a retry is clean."""

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from node_agent.archive import capture
from node_agent.archive import manifest as manifests
from node_agent.archive.commit import (
    ArchiveRequest,
    ArchiveResult,
    check_archive,
    read_manifest,
    write_archive,
)
from node_agent.archive.errors import (
    ArchiveConflict,
    ArchiveCorrupt,
    CaptureFailed,
    ManifestInvalid,
    RestoreCorrupt,
    RestoreDiskFull,
    RestoreFailed,
    SourceChanged,
)
from node_agent.archive.restore import restore_archive
from node_agent.directory_store import DirectoryStore
from node_agent.open_store import open_store
from state.model import TargetKind
from tests.support.s3_servers import BUCKET, CREDENTIALS, moto_server, rclone_server
from tests.support.small_disk import small_disk
from tests.support.trees import differences, snapshot
from tests.support.tripwire import Crash, Tripwire

REQUEST = ArchiveRequest(
    kind=TargetKind.POD,
    target_id="p-1",
    user_id="alice",
    epoch=3,
    attempt=5,
    number=2,
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    fingerprint={"container": "c", "finished_at": "t"},
    method="overlay2-upper",
    image_id="sha256:0",
)
MANIFEST_KEY = "archives/pod/p-1/3-5/manifest.json"
BLOB_KEY = "archives/pod/p-1/3-5/tree.tar.zst"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree."""
    folder = tmp_path / "source"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (folder / "notes").write_bytes(os.urandom(100_000))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An empty store."""
    return DirectoryStore(tmp_path / "store")


def restored(store: DirectoryStore, made: ArchiveResult, target: Path) -> Path:
    """The archive's tree, unpacked."""
    target.mkdir()
    restore_archive(store, check_archive(store, made.manifest_key, made.manifest_digest), target)
    return target


def test_the_manifest_comes_last_after_the_blob_was_read_back(source: Path, tmp_path: Path) -> None:
    """LAW 7: blob, verification, manifest."""
    store = Tripwire(tmp_path / "store")
    write_archive(store, REQUEST, source)
    order = [name for name, _ in itertools.groupby(store.effects)]
    assert order == ["open", "write", "commit", "read back", "manifest"]


# A crashed process closes none of its files.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_effect_loses_nothing(source: Path, tmp_path: Path, after: bool) -> None:
    """LAW 10: no manifest or a whole archive; the source untouched; the retry ends in the same archive."""
    before = snapshot(source)
    for crash_at in itertools.count():
        root = tmp_path / f"store-{crash_at}"
        if not crashes(Tripwire(root, crash_at, after=after), source):
            break
        store = DirectoryStore(root)
        if store.head(MANIFEST_KEY) is not None:
            data = store.get(MANIFEST_KEY, manifests.MANIFEST_BYTES_MAX)
            check_archive(store, MANIFEST_KEY, manifests.digest(data))
        made = write_archive(store, REQUEST, source)
        assert differences(before, snapshot(restored(store, made, tmp_path / f"target-{crash_at}"))) == []
        assert differences(before, snapshot(source)) == []
    assert crash_at >= len({"open", "write", "commit", "read back", "manifest"})


def crashes(store: Tripwire, source: Path) -> bool:
    """Whether archiving ran into the wire before it was done."""
    try:
        write_archive(store, REQUEST, source)
    except Crash:
        return True
    return False


def test_the_same_attempt_again_is_already_so(source: Path, store: DirectoryStore, tmp_path: Path) -> None:
    """A second run finds the first one's manifest and writes over nothing, later clock or not."""
    made = write_archive(store, REQUEST, source)
    inode = (tmp_path / "store" / BLOB_KEY).stat().st_ino
    later = replace(REQUEST, created_at=datetime(2027, 1, 1, tzinfo=UTC))
    assert write_archive(store, later, source) == made
    assert (tmp_path / "store" / BLOB_KEY).stat().st_ino == inode


def test_what_is_committed_needs_its_source_no_more(
    source: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    """The answer was lost, and the tree cannot be read any more: the step was done all the same."""
    made = write_archive(store, REQUEST, source)

    assert write_archive(store, REQUEST, tmp_path / "gone") == made


def test_an_attempt_is_never_reused_for_another_source(
    source: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    """Another container under the same attempt: refused, and the committed archive stays whole."""
    made = write_archive(store, REQUEST, source)
    before = snapshot(source)
    (source / "more").write_bytes(b"x")
    with pytest.raises(ArchiveConflict):
        write_archive(store, replace(REQUEST, fingerprint={"container": "other"}), source)
    (source / "more").unlink()
    found = snapshot(restored(store, made, tmp_path / "target"))
    assert differences(before, found | {b".": before[b"."]}) == []


def test_a_manifest_that_came_in_between_stands(source: Path, store: DirectoryStore) -> None:
    """Two at the same attempt: the second to commit learns of it and changes nothing."""
    theirs = b"{}\n"

    def meanwhile(_done: int, _total: int) -> None:
        store.put_manifest(MANIFEST_KEY, theirs)

    with pytest.raises(ArchiveConflict):
        write_archive(store, REQUEST, source, progress=meanwhile)
    assert store.get(MANIFEST_KEY, 10) == theirs


def change_content(source: Path) -> None:
    """Somebody writes."""
    (source / "notes").write_bytes(b"other")


def add_file(source: Path) -> None:
    """Somebody makes a file."""
    (source / "late").write_bytes(b"")


@pytest.mark.parametrize("change", [change_content, add_file])
def test_a_tree_that_changes_meanwhile_is_not_committed(
    source: Path, store: DirectoryStore, change: Callable[[Path], None]
) -> None:
    """Something still writes: SourceChanged, no manifest; when it is quiet the next attempt succeeds."""
    with pytest.raises(SourceChanged):
        write_archive(store, REQUEST, source, progress=lambda _done, _total: change(source))
    assert store.head(MANIFEST_KEY) is None
    write_archive(store, replace(REQUEST, attempt=6), source)


def test_a_source_that_is_not_there_commits_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    """CaptureFailed names the path; the store stays empty."""
    with pytest.raises(CaptureFailed, match="nowhere"):
        write_archive(store, REQUEST, tmp_path / "nowhere")
    assert store.list("") == ()


def kill_tar(_done: int, _total: int) -> None:
    """kill -9 of the tar that this process has started, in a namespace of its own."""
    for runner in children(threading.get_native_id()):
        for pid in children(runner):
            if Path(f"/proc/{pid}/comm").read_text() == "tar\n":
                os.kill(pid, signal.SIGKILL)


def children(thread_id: int) -> list[int]:
    """Processes that the thread has started."""
    found = Path(f"/proc/{thread_id}/task/{thread_id}/children")
    if not found.exists():
        found = Path(f"/proc/self/task/{thread_id}/children")
    return [int(pid) for pid in found.read_text().split()]


def test_a_tar_that_dies_commits_nothing(source: Path, store: DirectoryStore) -> None:
    """A stream that ends early is not taken for a small tree."""
    (source / "large").write_bytes(os.urandom(64 << 20))
    with pytest.raises(CaptureFailed):
        write_archive(store, REQUEST, source, progress=kill_tar)
    assert store.list("") == ()


@pytest.mark.parametrize("kept", ["head -c 0", "head -c 2560", "head -c 103424"])
def test_a_stream_that_breaks_off_commits_nothing(
    source: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """Between two files, or before the first, and the program that wrote it says that all is well."""
    cut = ["sh", "-c", f"tar --directory={source} --create . | {kept}"]
    monkeypatch.setattr(capture, "create_argv", lambda *_: cut)
    with pytest.raises(CaptureFailed, match="breaks off"):
        write_archive(store, REQUEST, source)
    assert store.list("") == ()


def test_a_well_made_blob_of_something_else_is_not_restored(
    source: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    """Another tree's blob, whole and of the same size unpacked, under this one's key: RestoreCorrupt."""
    made = write_archive(store, REQUEST, source)
    (source / "notes").write_bytes(os.urandom(100_000))
    other = write_archive(store, replace(REQUEST, attempt=6), source)
    assert other.manifest.blobs[0].tar_bytes == made.manifest.blobs[0].tar_bytes
    (tmp_path / "store" / other.manifest.blobs[0].key).replace(tmp_path / "store" / BLOB_KEY)
    (tmp_path / "target").mkdir()
    with pytest.raises(RestoreCorrupt):
        restore_archive(store, made.manifest, tmp_path / "target")


class _BitRot(DirectoryStore):
    """A store whose disk changes a byte of each blob right after it was written."""

    def open_reader(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        path = self._root / key
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return super().open_reader(key)


def test_a_blob_that_reads_back_wrong_is_not_committed(source: Path, tmp_path: Path) -> None:
    """The store gave back other bytes: no manifest."""
    store = _BitRot(tmp_path / "store")
    with pytest.raises(ArchiveCorrupt, match="reads back"):
        write_archive(store, REQUEST, source)
    assert store.head(MANIFEST_KEY) is None


def test_a_check_sees_whatever_is_missing(source: Path, store: DirectoryStore, tmp_path: Path) -> None:
    """LAW 8: blob gone, blob shorter, manifest changed, manifest gone: no proof, no removal."""
    made = write_archive(store, REQUEST, source)
    blob, manifest = tmp_path / "store" / BLOB_KEY, tmp_path / "store" / MANIFEST_KEY
    whole = blob.read_bytes()

    def refused() -> None:
        with pytest.raises((ArchiveCorrupt, ManifestInvalid)):
            check_archive(store, made.manifest_key, made.manifest_digest)

    blob.write_bytes(whole[:-1])
    refused()
    blob.unlink()
    refused()
    blob.write_bytes(whole)
    assert check_archive(store, made.manifest_key, made.manifest_digest) == made.manifest
    with pytest.raises(ArchiveCorrupt):
        read_manifest(store, made.manifest_key, "0" * 64)
    manifest.write_bytes(manifest.read_bytes().replace(b'"epoch":3', b'"epoch":4'))
    refused()
    manifest.unlink()
    refused()


def test_a_full_disk_on_restore_is_told(source: Path, store: DirectoryStore, tmp_path: Path) -> None:
    """RestoreDiskFull says to make room, and that the archive is well."""
    (source / "notes").write_bytes(os.urandom(3 << 20))
    made = write_archive(store, REQUEST, source)
    with (
        small_disk(tmp_path / "small", 1) as target,
        pytest.raises(RestoreDiskFull, match="Make room"),
    ):
        restore_archive(store, made.manifest, target)


def test_a_missing_target_is_told(source: Path, store: DirectoryStore, tmp_path: Path) -> None:
    """Nothing is made in some other place instead."""
    made = write_archive(store, REQUEST, source)
    with pytest.raises(RestoreFailed, match="nowhere"):
        restore_archive(store, made.manifest, tmp_path / "nowhere")


def test_progress_grows_to_the_whole(source: Path, store: DirectoryStore, tmp_path: Path) -> None:
    """Bytes done never shrink nor pass the total, and end at it, on the way in and out."""
    saving: list[tuple[int, int]] = []
    made = write_archive(store, REQUEST, source, progress=lambda *step: saving.append(step))
    (tmp_path / "target").mkdir()
    loading: list[tuple[int, int]] = []
    restore_archive(store, made.manifest, tmp_path / "target", progress=lambda *step: loading.append(step))
    for steps in (saving, loading):
        assert steps == sorted(steps)
        assert all(done <= total for done, total in steps)
        assert steps[-1][0] == made.manifest.blobs[0].tar_bytes


@pytest.mark.parametrize("server", ["moto", "rclone"])
def test_archive_and_restore_through_s3(
    server: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several parts there and back, the same tree; a second run is already so."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    (source / "large").write_bytes(os.urandom(20 << 20))
    before, target = snapshot(source), tmp_path / "target"
    serving = (
        moto_server(tmp_path / "log")
        if server == "moto"
        else rclone_server(tmp_path / "s3", tmp_path / "log")
    )
    with serving as endpoint:
        if server == "moto":
            boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        store = open_store(f"s3://{BUCKET}/site?endpoint={endpoint}")
        made = write_archive(store, REQUEST, source)
        assert write_archive(store, REQUEST, source) == made
        target.mkdir()
        restore_archive(store, check_archive(store, made.manifest_key, made.manifest_digest), target)
    assert differences(before, snapshot(target)) == []
