"""One contract for every store: a directory, moto's S3 (conditional puts), rclone's (none), a sealed one."""

import hashlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_agent.master_keys import FileMasterKeys, new_key_file
from node_agent.open_store import open_store, sealed
from node_agent.s3_target import PART_BYTES
from node_agent.store import (
    Store,
    StoreCapabilities,
    StoreConflict,
    StoreError,
    StoreKeyInvalid,
    StoreNotFound,
    StoreTooLarge,
)
from tests.support.s3_servers import BUCKET, CREDENTIALS, moto_server, rclone_server

MIB = 1 << 20
SEQUENCE = itertools.count()
lawful = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Subject:
    """A store under test, by URL, and what a probe of it must find."""

    url: str
    store: Store
    conditional_put: bool
    key_file: Path | None = None

    def key(self) -> str:
        """A key that no other test uses."""
        return f"t{next(SEQUENCE)}/blob"


@pytest.fixture(scope="module")
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module", params=["directory", "moto", "rclone", "sealed"])
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _credentials: None
) -> Iterator[Subject]:
    """Each store in turn, empty, as its URL opens it."""
    folder = tmp_path_factory.mktemp("store")
    if request.param == "directory":
        url = f"file://{folder}"
        yield Subject(url, open_store(url), conditional_put=True)
    elif request.param == "sealed":
        url, key_file = f"file://{folder}/store", folder / "keys.json"
        new_key_file(key_file, "first")
        store = sealed(open_store(url), FileMasterKeys(key_file)).of_user("alice")
        yield Subject(url, store, conditional_put=True, key_file=key_file)
    elif request.param == "moto":
        with moto_server(folder / "log") as endpoint:
            boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
            url = f"s3://{BUCKET}/some/prefix?endpoint={endpoint}&region=us-east-1"
            yield Subject(url, open_store(url), conditional_put=True)
    else:
        with rclone_server(folder / "root", folder / "log") as endpoint:
            url = f"s3://{BUCKET}?endpoint={endpoint}"
            yield Subject(url, open_store(url), conditional_put=False)


def write(store: Store, key: str, *chunks: bytes) -> None:
    """Write a whole blob."""
    with store.open_writer(key) as writer:
        for chunk in chunks:
            writer.write(chunk)
        writer.commit()


def read(store: Store, key: str) -> bytes:
    """Read a whole blob."""
    with store.open_reader(key) as chunks:
        return b"".join(chunks)


def killed_after_writing(subject: Subject, key: str, size_bytes: int) -> None:
    """A writer of so many bytes, in a process of its own that is killed before it commits."""
    key_file = str(subject.key_file or "")
    program = (
        "import time; from pathlib import Path; from node_agent.open_store import *\n"
        f"masters = open_masters(Path({key_file!r}) if {key_file!r} else None, None)\n"
        f"writer = sealed(open_store({subject.url!r}), masters).of_user('alice').open_writer({key!r})\n"
        f"writer.write(bytes({size_bytes})); print('written', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    with child:
        assert child.stdout
        assert child.stdout.readline() == b"written\n"
        child.kill()


@lawful
@given(chunks=st.lists(st.binary(max_size=5000), max_size=8))
def test_any_bytes_come_back_however_they_were_cut(subject: Subject, chunks: list[bytes]) -> None:
    """What is committed reads back byte for byte, and the receipt has its true size and digest."""
    key, whole = subject.key(), b"".join(chunks)
    with subject.store.open_writer(key) as writer:
        for chunk in chunks:
            writer.write(chunk)
        receipt = writer.commit()
    assert read(subject.store, key) == whole
    assert (receipt.key, receipt.size_bytes) == (key, len(whole))
    assert receipt.sha256 == hashlib.sha256(whole).hexdigest()
    assert subject.store.head(key) == len(whole)


@pytest.mark.parametrize(
    "size_bytes", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 45 * MIB + 7]
)
def test_blobs_of_several_parts_come_back(subject: Subject, size_bytes: int) -> None:
    """Around and far beyond the size of a part, nothing is lost, doubled or swapped."""
    key = subject.key()
    whole = os.urandom(MIB) * (size_bytes // MIB) + os.urandom(size_bytes % MIB)
    write(subject.store, key, *(whole[at : at + 700_001] for at in range(0, size_bytes, 700_001)))
    assert hashlib.sha256(read(subject.store, key)).digest() == hashlib.sha256(whole).digest()


@pytest.mark.parametrize("size_bytes", [0, 10, 20 * MIB])
def test_nothing_shows_before_commit_nor_after_abort(subject: Subject, size_bytes: int) -> None:
    """A writer under way, and one that was aborted, leave no trace under the key or in a listing."""
    key = subject.key()
    writer = subject.store.open_writer(key)
    writer.write(bytes(size_bytes))
    assert subject.store.head(key) is None
    writer.abort()
    assert subject.store.head(key) is None
    assert subject.store.list(key.removesuffix("blob")) == ()
    writer.abort()


def test_leaving_the_block_without_commit_aborts(subject: Subject) -> None:
    """An error between the writes drops the blob; a commit after that is refused."""
    key = subject.key()
    writer = subject.store.open_writer(key)

    def fail_half_way() -> None:
        with writer:
            writer.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert subject.store.head(key) is None
    with pytest.raises(StoreError):
        writer.commit()


@pytest.mark.parametrize("size_bytes", [1000, 20 * MIB])
def test_a_killed_writer_leaves_nothing_visible(subject: Subject, size_bytes: int) -> None:
    """kill -9 in the middle of a write: the key stays absent, and a second try is clean."""
    key = subject.key()
    killed_after_writing(subject, key, size_bytes)
    assert subject.store.head(key) is None
    assert subject.store.list(key) == ()
    write(subject.store, key, b"second try")
    assert read(subject.store, key) == b"second try"


@pytest.mark.parametrize("size_bytes", [10, 20 * MIB])
def test_a_blob_is_never_replaced(subject: Subject, size_bytes: int) -> None:
    """The same bytes under the same key again are success; others are a conflict, and the first stay."""
    key, first = subject.key(), os.urandom(size_bytes)
    write(subject.store, key, first)
    write(subject.store, key, first)
    for other in (first[:-1] + bytes([first[-1] ^ 1]), first[:-1], first + b"x", bytes(size_bytes), b""):
        with pytest.raises(StoreConflict):
            write(subject.store, key, other)
    assert read(subject.store, key) == first


def test_unfinished_writes_are_dropped_once_they_are_old(subject: Subject) -> None:
    """A killed writer's parts cost room: what nobody has added to for long enough goes, and only that."""
    subject.store.drop_unfinished(timedelta(seconds=-1))
    # So much that some parts have arrived before the last is begun: moto dates uploads to 2010, parts truly.
    killed_after_writing(subject, subject.key(), 60 * MIB)
    assert subject.store.drop_unfinished(timedelta(hours=1)) == 0
    assert subject.store.drop_unfinished(timedelta(seconds=-1)) == 1
    assert subject.store.drop_unfinished(timedelta(seconds=-1)) == 0


def test_the_probe_tells_the_truth_about_conditional_puts(subject: Subject) -> None:
    """moto and directories have them, rclone ignores the condition; the scratch key is gone afterwards."""
    can = subject.conditional_put
    assert subject.store.probe() == StoreCapabilities(conditional_put=can, conditional_complete=can)
    assert subject.store.list("probe/") == ()


@lawful
@given(first=st.binary(max_size=200), second=st.binary(max_size=200))
def test_a_second_manifest_with_other_content_conflicts(
    subject: Subject, first: bytes, second: bytes
) -> None:
    """The first manifest stays; the same bytes again are success."""
    key = subject.key()
    subject.store.put_manifest(key, first)
    if first == second:
        subject.store.put_manifest(key, second)
    else:
        with pytest.raises(StoreConflict):
            subject.store.put_manifest(key, second)
    assert subject.store.get(key, 200) == first


def test_a_manifest_can_be_replaced_on_purpose(subject: Subject) -> None:
    """Without the condition the new bytes win."""
    key = subject.key()
    subject.store.put_manifest(key, b"one")
    subject.store.put_manifest(key, b"two", only_if_absent=False)
    assert subject.store.get(key, 3) == b"two"


def test_of_racing_manifests_one_wins_where_the_store_can(subject: Subject) -> None:
    """Eight at once: what is there afterwards is one of them, whole; with conditions, the others know."""
    key, barrier = subject.key(), threading.Barrier(8)
    won: list[bytes] = []

    def race(content: bytes) -> None:
        barrier.wait()
        try:
            subject.store.put_manifest(key, content)
        except StoreConflict:
            return
        won.append(content)

    racers = [threading.Thread(target=race, args=(b"content %d" % number,)) for number in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert subject.store.get(key, 100) in won
    if subject.conditional_put:
        assert len(won) == 1


def test_get_reads_no_more_than_allowed(subject: Subject) -> None:
    """An object larger than the bound is an error, not a memory problem."""
    key = subject.key()
    subject.store.put_manifest(key, b"0123456789")
    assert subject.store.get(key, 10) == b"0123456789"
    with pytest.raises(StoreTooLarge):
        subject.store.get(key, 9)


def test_what_is_not_there_is_said_so(subject: Subject) -> None:
    """Reading raises StoreNotFound, looking gives None, deleting is success."""
    key = subject.key()
    with pytest.raises(StoreNotFound):
        subject.store.get(key, 10)
    with pytest.raises(StoreNotFound), subject.store.open_reader(key) as chunks:
        next(chunks)
    assert subject.store.head(key) is None
    subject.store.delete(key)


def test_a_deleted_blob_is_gone(subject: Subject) -> None:
    """Delete works, also twice, and touches nothing else."""
    key = subject.key()
    write(subject.store, key, b"x")
    write(subject.store, f"{key}-other", b"y")
    subject.store.delete(key)
    subject.store.delete(key)
    assert subject.store.list(key) == (f"{key}-other",)


@lawful
@given(data=st.data())
def test_lists_are_sorted_and_bounded(subject: Subject, data: st.DataObject) -> None:
    """The first keys by byte order that start with the prefix, whether or not it ends at a slash."""
    base = subject.key()
    names = data.draw(st.sets(st.sampled_from(["a", "a-1", "a/b", "a/c", "a.x/y", "ab", "b/a/a", "z"])))
    clashing = {name for name in names if any(other.startswith(f"{name}/") for other in names)}
    keys = sorted(f"{base}/{name}" for name in names - clashing)
    for key in keys:
        subject.store.put_manifest(key, b"")
    prefix = f"{base}/" + data.draw(st.sampled_from(["", "a", "a/", "a/b", "b/a/", "q"]))
    limit = data.draw(st.integers(1, 9))
    assert subject.store.list(prefix, limit) == tuple(key for key in keys if key.startswith(prefix))[:limit]


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".incoming/x", "a/.b", "a\n", "ü", "a b", "x" * 901],
)
def test_bad_keys_are_refused_by_every_verb(subject: Subject, key: str) -> None:
    """Path tricks never reach the store."""
    for verb in (
        subject.store.open_writer,
        subject.store.head,
        subject.store.delete,
        lambda key: subject.store.get(key, 1),
        lambda key: subject.store.put_manifest(key, b""),
        lambda key: subject.store.open_reader(key).__enter__(),
    ):
        with pytest.raises(StoreKeyInvalid):
            verb(key)


def test_an_error_of_the_reader_is_passed_on_unchanged(subject: Subject) -> None:
    """A store blames itself only: an OSError raised by whoever consumes the chunks stays one."""
    key = subject.key()
    write(subject.store, key, b"x")

    def consume() -> None:
        with subject.store.open_reader(key):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        consume()


def test_the_url_opens_below_a_path_of_ones_own(tmp_path: Path) -> None:
    """Spaces in a directory's name are percent-encoded in its URL."""
    write(open_store(f"file://{tmp_path}/my%20store"), "k", b"v")
    assert (tmp_path / "my store" / "k").read_bytes() == b"v"


@pytest.mark.parametrize(
    "url", ["", "http://x/", "file://host/path", "file:relative", "s3:///key", "s3://b?endpont=http://x"]
)
def test_other_urls_are_refused(url: str) -> None:
    """The message names the two forms, or the unknown option."""
    with pytest.raises(ValueError, match=r"store URL"):
        open_store(url)


def test_entries_are_pages_with_size_time_and_version(subject: Subject) -> None:
    """In byte order, from after a key; the times are by the store's own clock."""
    folder = subject.key().partition("/")[0]
    began = subject.store.clock()
    for name, size in (("b", 2), ("a/x", 1), ("c", 3)):
        write(subject.store, f"{folder}/{name}", b"z" * size)
    shown = subject.store.entries(f"{folder}/")
    assert [entry.key for entry in shown] == [f"{folder}/a/x", f"{folder}/b", f"{folder}/c"]
    sealed = shown[0].size_bytes - 1  # what the seal adds to each, if there is one
    assert [entry.size_bytes - sealed for entry in shown] == [1, 2, 3]
    assert all(began - timedelta(seconds=2) <= entry.modified_at for entry in shown)
    assert subject.store.entries(f"{folder}/", limit=1) == shown[:1]
    assert subject.store.entries(f"{folder}/", after=shown[0].key) == shown[1:]
    assert subject.store.entries(f"{folder}/", after=shown[-1].key) == ()


def test_only_what_was_seen_is_deleted(subject: Subject) -> None:
    """What was written since stays; what is gone already is gone."""
    key = subject.key()
    subject.store.put_manifest(key, b"old")
    (old,) = subject.store.entries(key)
    subject.store.put_manifest(key, b"new one", only_if_absent=False)
    assert not subject.store.delete_if_same(old)
    assert read(subject.store, key) == b"new one"
    (new,) = subject.store.entries(key)
    assert subject.store.delete_if_same(new)
    assert subject.store.head(key) is None
    assert subject.store.delete_if_same(new)
