"""Laws of archives: whatever tree goes in comes out, in every respect, or not at all."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_agent.archive.commit import ArchiveRequest, check_archive, write_archive
from node_agent.archive.errors import RestoreCorrupt
from node_agent.archive.fingerprint import record_tree, scan_tree, tree_fingerprint
from node_agent.archive.restore import restore_archive, restore_tree
from node_agent.directory_store import DirectoryStore
from tests.support.archive_requests import REQUEST
from tests.support.random_trees import Tree, build, trees
from tests.support.trees import differences, snapshot

SEQUENCE = itertools.count()
lawful = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


def request(attempt: int) -> ArchiveRequest:
    """An archive of a workspace under a fresh attempt."""
    return replace(REQUEST, epoch=7, attempt=attempt)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples of one test are built, each in a folder of its own."""
    return tmp_path_factory.mktemp("trees")


def fresh(folder: Path, name: str) -> Path:
    """An empty folder for one example."""
    path = folder / f"{next(SEQUENCE)}-{name}"
    path.mkdir()
    return path


@lawful
@given(tree=trees())
def test_a_restored_tree_is_the_archived_tree(folder: Path, tree: Tree) -> None:
    """Content, holes, types, modes, owners, times, links, attributes, ACLs, whiteouts: no difference."""
    source, target, store = fresh(folder, "source"), fresh(folder, "target"), DirectoryStore(folder / "store")
    build(tree, source)
    before = snapshot(source)
    made = write_archive(store, request(next(SEQUENCE)), source)
    restore_archive(store, check_archive(store, made.manifest_key, made.manifest_digest), target)
    assert differences(before, snapshot(target)) == []
    assert made.manifest.entries == len(before)
    assert differences(before, snapshot(source)) == []


@lawful
@given(tree=trees(), data=st.data())
def test_a_damaged_blob_is_never_taken_for_whole(folder: Path, tree: Tree, data: st.DataObject) -> None:
    """One flipped bit, a cut end or a byte too many: RestoreCorrupt, whatever was unpacked before it."""
    source, target, store = fresh(folder, "source"), fresh(folder, "target"), DirectoryStore(folder / "store")
    build(tree, source)
    blob = write_archive(store, request(next(SEQUENCE)), source).manifest.blobs[0]
    stored = folder / "store" / blob.key
    stored.write_bytes(data.draw(damages(stored.read_bytes())))
    with pytest.raises(RestoreCorrupt):
        restore_tree(store, blob, target)


def damages(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with one thing wrong with them."""
    bits = st.integers(0, len(whole) * 8 - 1)
    flipped = bits.map(
        lambda bit: whole[: bit // 8] + bytes([whole[bit // 8] ^ (1 << bit % 8)]) + whole[bit // 8 + 1 :]
    )
    cut = st.integers(0, len(whole) - 1).map(lambda size: whole[:size])
    longer = st.binary(min_size=1, max_size=50).map(lambda extra: whole + extra)
    return flipped | cut | longer


@lawful
@given(tree=trees())
def test_the_fingerprint_stays_until_something_changes(folder: Path, tree: Tree) -> None:
    """Two looks at an untouched tree agree; a file more, and they do not."""
    source = fresh(folder, "source")
    build(tree, source)
    before = tree_fingerprint(source)
    assert tree_fingerprint(source) == before
    (source / "one-more").write_bytes(b"")
    assert tree_fingerprint(source) != before


@lawful
@given(tree=trees())
def test_what_is_not_kept_is_counted(folder: Path, tree: Tree) -> None:
    """The scan counts exactly the sockets; everything else is an entry."""
    source = fresh(folder, "source")
    build(tree, source)
    scan = scan_tree(source)
    sockets = sum(1 for path in source.rglob("*") if path.is_socket())
    assert scan.socket_count == sockets
    assert scan.entries == len(snapshot(source))


@lawful
@given(tree=trees())
def test_what_is_recorded_of_a_restored_tree_is_what_a_scan_records(folder: Path, tree: Tree) -> None:
    """The lighter walk takes down the same entries with the same identities, in the same order."""
    source = fresh(folder, "source")
    build(tree, source)
    light: list[tuple[bytes, bytes]] = []
    full: list[tuple[bytes, bytes]] = []
    record_tree(source, lambda path, _seen, identity: light.append((path, identity)))
    scan_tree(source, lambda path, _seen, identity: full.append((path, identity)))
    assert light == full
