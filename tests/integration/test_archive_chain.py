"""Chains end to end: a crash anywhere, strange trees, and a pod that goes away and comes back repeatedly."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.archive.commit import ArchiveResult, NodeMemory, check_archive, write_archive
from node_agent.archive.compact import compact, is_worth_compacting
from node_agent.archive.errors import ArchiveCorrupt
from node_agent.archive.memory import Memory
from node_agent.archive.restore import restore_archive
from node_agent.directory_store import DirectoryStore
from state.wire import ArchivePod, CreateWorkspace, PodSpec, RestorePod, StartPod, StopPod
from tests.integration.test_archive_strange_trees import deep_content, make_deep
from tests.support.archive_requests import REQUEST as OF_A_WORKSPACE
from tests.support.docker_node import ONE, DockerNode, pod_image, source_of
from tests.support.pod_tree import differences as pod_differences
from tests.support.pod_tree import pod_tree
from tests.support.trees import differences, settle, snapshot
from tests.support.tripwire import Crash, Tripwire

MIB = 1 << 20
TOPS = ("/home", "/opt/kept", "/usr/share", "/var/lib")
REQUEST = replace(OF_A_WORKSPACE, fingerprint={})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree large enough for chains."""
    folder = tmp_path / "source"
    (folder / "lab").mkdir(parents=True)
    (folder / "lab" / "data").write_bytes(os.urandom(2 * MIB))
    (folder / "lab" / "notes").write_text("before")
    return folder


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own."""
    node = DockerNode(tmp_path)
    yield node
    node.clean_up()


def on_top_of(memory: Path, made: ArchiveResult | None = None) -> NodeMemory:
    """The memory of a node whose agent has just started, and the archive in the database."""
    node = NodeMemory(Memory(memory))
    return replace(node, base_key=made.manifest_key, base_digest=made.manifest_digest) if made else node


def restored(store: DirectoryStore, made: ArchiveResult, target: Path) -> Path:
    """The archive's tree, unpacked."""
    target.mkdir()
    restore_archive(store, check_archive(store, made.manifest_key, made.manifest_digest), target)
    return target


def based(source: Path, tmp_path: Path) -> ArchiveResult:
    """The first archive; then a small change."""
    settle()
    made = write_archive(
        DirectoryStore(tmp_path / "store"), REQUEST, source, node=on_top_of(tmp_path / "mem")
    )
    (source / "lab" / "notes").write_text("after")
    os.link(source / "lab" / "notes", source / "linked")
    return made


def crash_copies(
    tmp_path: Path, step: Callable[[Tripwire, Path], object]
) -> Iterator[tuple[DirectoryStore, Path, int]]:
    """Store and memory as they are after a crash at each effect of a step, and which effect it was."""
    for crash_at, after in ((place, after) for place in itertools.count() for after in (False, True)):
        store, memory = tmp_path / f"store-{crash_at}{after}", tmp_path / f"memory-{crash_at}{after}"
        shutil.copytree(tmp_path / "store", store)
        shutil.copytree(tmp_path / "mem", memory)
        try:
            step(Tripwire(store, crash_at, after=after), memory)
        except Crash:
            yield DirectoryStore(store), memory, crash_at
        else:
            return


# A crashed process closes none of its files.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_crash_of_an_incremental_archive_loses_nothing(source: Path, tmp_path: Path) -> None:
    """LAW 10: the base stays whole, and the retry under another attempt is the whole tree."""
    before, first = snapshot(source), based(source, tmp_path)
    before = snapshot(restored(DirectoryStore(tmp_path / "store"), first, tmp_path / "before"))
    settle()
    request, changed = replace(REQUEST, attempt=2), snapshot(source)

    def step(store: Tripwire, memory: Path) -> object:
        return write_archive(store, request, source, node=on_top_of(memory, first))

    crashes = 0
    for store, memory, _ in crash_copies(tmp_path, step):
        crashes += 1
        assert differences(before, snapshot(restored(store, first, tmp_path / f"old-{crashes}"))) == []
        retry = replace(REQUEST, attempt=3)
        made = write_archive(store, retry, source, node=on_top_of(memory, first))
        assert len(made.manifest.layers) == 2
        assert differences(changed, snapshot(restored(store, made, tmp_path / f"new-{crashes}"))) == []
    assert crashes >= 14  # two blobs of three effects and a reading back, and the manifest; before and after


def test_what_is_gone_stays_gone(source: Path, tmp_path: Path) -> None:
    """A file is deleted, another becomes a folder, a third loses a name: so it is after the restore."""
    (source / "lab" / "becomes").write_text("a file")
    os.link(source / "lab" / "becomes", source / "lab" / "stays")
    first = based(source, tmp_path)
    (source / "linked").unlink()
    (source / "lab" / "notes").unlink()
    (source / "lab" / "becomes").unlink()
    (source / "lab" / "becomes").mkdir()
    settle()
    store = DirectoryStore(tmp_path / "store")
    made = write_archive(store, replace(REQUEST, attempt=2), source, node=on_top_of(tmp_path / "mem", first))
    assert len(made.manifest.layers) == 2
    assert differences(snapshot(source), snapshot(restored(store, made, tmp_path / "target"))) == []


def test_a_retry_sends_only_what_was_missing(source: Path, tmp_path: Path) -> None:
    """Cut before the manifest, the layer is in the store and was read back: the next attempt names it."""
    settle()
    order = Tripwire(tmp_path / "dry")
    write_archive(order, REQUEST, source)
    store = Tripwire(tmp_path / "store", order.effects.index("manifest"))
    with pytest.raises(Crash):
        write_archive(store, REQUEST, source, node=on_top_of(tmp_path / "mem"))

    again = Tripwire(tmp_path / "store")
    made = write_archive(again, replace(REQUEST, attempt=2), source, node=on_top_of(tmp_path / "mem"))

    assert again.effects == ["manifest"]
    assert made.manifest.blobs[0].key.startswith("archives/workspace/w-1/1-1/")
    assert differences(snapshot(source), snapshot(restored(again, made, tmp_path / "target"))) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_crash_of_a_compaction_loses_nothing(source: Path, tmp_path: Path) -> None:
    """The chain is never touched; the same run again ends in one layer of the same tree."""
    first = based(source, tmp_path)
    settle()
    whole = DirectoryStore(tmp_path / "store")
    chain = write_archive(whole, replace(REQUEST, attempt=2), source, node=on_top_of(tmp_path / "mem", first))
    expected = snapshot(source)
    for number, (store, _, _) in enumerate(
        crash_copies(tmp_path, lambda store, _memory: compact(store, chain.manifest, "c1"))
    ):
        assert differences(expected, snapshot(restored(store, chain, tmp_path / f"old-{number}"))) == []
        made = compact(store, chain.manifest, "c1")
        assert made == compact(store, chain.manifest, "c1")
        assert len(made.manifest.blobs) == 1
        assert made.manifest.fingerprint == chain.manifest.fingerprint
        assert differences(expected, snapshot(restored(store, made, tmp_path / f"new-{number}"))) == []
    assert number >= 7


def test_a_base_that_is_broken_is_not_built_on(source: Path, tmp_path: Path) -> None:
    """A blob of the base is gone: the next archive is a full one, and whole."""
    first = based(source, tmp_path)
    settle()
    store = DirectoryStore(tmp_path / "store")
    store.delete(first.manifest.blobs[0].key)
    made = write_archive(store, replace(REQUEST, attempt=2), source, node=on_top_of(tmp_path / "mem", first))
    assert len(made.manifest.blobs) == 1
    assert differences(snapshot(source), snapshot(restored(store, made, tmp_path / "target"))) == []


@pytest.mark.parametrize("other", ["boot", "copy", "target"])
def test_a_memory_of_something_else_is_not_trusted(source: Path, tmp_path: Path, other: str) -> None:
    """After a reboot, for a copy of the tree in its place, for another target: a full archive."""
    first = based(source, tmp_path)
    settle()
    request = replace(REQUEST, attempt=2)
    if other == "boot":
        for head in (tmp_path / "mem").glob("*/*.json"):
            head.write_text(head.read_text().replace('"boot": "', '"boot": "0'))
    elif other == "copy":
        source.rename(tmp_path / "away")
        shutil.copytree(tmp_path / "away", source, symlinks=True)
    else:
        request = replace(request, target_id="w-2")
    made = write_archive(
        DirectoryStore(tmp_path / "store"), request, source, node=on_top_of(tmp_path / "mem", first)
    )
    assert len(made.manifest.blobs) == 1


@pytest.mark.parametrize("spoilt", ["a file in its place", "records cut", "heads cut"])
def test_a_spoilt_memory_costs_a_full_archive(source: Path, tmp_path: Path, spoilt: str) -> None:
    """The node's own files are a cache: whatever became of them, the archive comes to be, and is whole."""
    first = based(source, tmp_path)
    settle()
    if spoilt == "a file in its place":
        shutil.rmtree(tmp_path / "mem")
        (tmp_path / "mem").write_text("")
    for path in (tmp_path / "mem").glob("*/records-*" if spoilt == "records cut" else "*/*.json"):
        os.truncate(path, path.stat().st_size // 2)
    store = DirectoryStore(tmp_path / "store")
    made = write_archive(store, replace(REQUEST, attempt=2), source, node=on_top_of(tmp_path / "mem", first))
    assert len(made.manifest.blobs) == 1
    assert differences(snapshot(source), snapshot(restored(store, made, tmp_path / "target"))) == []


def test_the_index_cannot_hide_a_file(source: Path, tmp_path: Path) -> None:
    """An index that names too much, well made and well hashed: the restore counts entries, and refuses."""
    first = based(source, tmp_path)
    settle()
    store = DirectoryStore(tmp_path / "store")
    made = write_archive(store, replace(REQUEST, attempt=2), source, node=on_top_of(tmp_path / "mem", first))
    wrong = made.manifest.model_copy(update={"entries": made.manifest.entries + 1})
    (tmp_path / "target").mkdir()
    with pytest.raises(ArchiveCorrupt, match="entries"):
        restore_archive(store, wrong, tmp_path / "target")


def test_strange_things_stay_through_a_chain(source: Path, tmp_path: Path) -> None:
    """A 4 GiB hole, a 4,000-byte path, an inner engine's whiteouts, old and late times: all in the base."""
    with (source / "sparse").open("wb") as file:
        file.seek(4096 * MIB)
        file.write(b"end")
    deep, inner = source / "deep", source / "var" / "lib" / "docker" / "overlay2" / "abc" / "diff"
    deep.mkdir()
    make_deep(deep, 3990)
    inner.mkdir(parents=True)
    os.mknod(inner / "gone", 0o020000, os.makedev(0, 0))
    os.setxattr(inner, "trusted.overlay.opaque", b"y")
    for name, seconds in (("old", -86_400), ("late", 4_102_444_800)):
        (source / name).write_text(name)
        os.utime(source / name, ns=(0, seconds * 10**9 + 123_456_789))
    first = based(source, tmp_path)
    settle()
    store = DirectoryStore(tmp_path / "store")
    made = write_archive(store, replace(REQUEST, attempt=2), source, node=on_top_of(tmp_path / "mem", first))
    assert made.manifest.layers[0] == first.manifest.blobs[0].model_copy(
        update={"live_bytes": made.manifest.layers[0].live_bytes}
    )
    target = restored(store, made, tmp_path / "target")
    assert deep_content(target / "deep") == deep_content(deep)
    assert (target / "sparse").stat().st_size == 4096 * MIB + 3
    assert (target / "sparse").stat().st_blocks * 512 < MIB
    for tree in (source, target):
        (tree / "sparse").unlink()
        shutil.rmtree(tree / "deep")
        os.utime(tree, ns=(0, 0))
    assert differences(snapshot(source), snapshot(target)) == []


def test_one_of_two_hundred_thousand_entries_changes(source: Path, tmp_path: Path) -> None:
    """A folder of 200,000 names: the second archive is a small layer, and all names come back."""
    folder = os.open(source / "lab", os.O_DIRECTORY)
    for number in range(200_000):
        first = number // 50_000 * 50_000
        if number == first:
            os.mknod(f"{number}", dir_fd=folder)
        else:
            os.link(f"{first}", f"{number}", src_dir_fd=folder, dst_dir_fd=folder)
    os.close(folder)
    settle()
    store = DirectoryStore(tmp_path / "store")
    first_made = write_archive(store, REQUEST, source, node=on_top_of(tmp_path / "mem"))
    (source / "one more").write_text("x")
    settle()
    made = write_archive(
        store, replace(REQUEST, attempt=2), source, node=on_top_of(tmp_path / "mem", first_made)
    )
    assert made.manifest.layers[-1].tar_bytes < 100_000
    target = restored(store, made, tmp_path / "target")
    assert sorted(os.listdir(target / "lab")) == sorted(os.listdir(source / "lab"))  # noqa: PTH208 (too many)


def test_a_pod_goes_away_and_comes_back_again_and_again(node: DockerNode) -> None:
    """Each archive after a restore is a small layer on the one before, and each restored pod is the same."""
    node.running_pod(ONE)
    node.run(
        ONE,
        "mkdir -p /opt/kept; head -c 3000000 /dev/urandom >/opt/kept/data; rm -r /usr/share/git-core",
        user="root",
    )
    node.stop(ONE)
    saved = node.saved(ONE)
    layers: list[int] = []
    for epoch in (2, 3):
        node.done(CreateWorkspace(), epoch=epoch)
        spec = PodSpec(name="ide", image=pod_image(), image_id=saved.image_id)
        node.done(RestorePod(spec=spec, archive=source_of(saved)), ONE, epoch=epoch)
        node.done(StartPod(), ONE, epoch=epoch)
        node.run(
            ONE,
            f"echo {epoch} >/opt/kept/notes; rm -rf /usr/share/perl5; touch /opt/kept/{epoch}",
            user="root",
            epoch=epoch,
        )
        before = pod_tree(node.container(ONE, epoch=epoch).id, TOPS)
        node.done(StopPod(), ONE, epoch=epoch)
        made = node.done(ArchivePod(number=epoch, base=source_of(saved)), ONE, epoch=epoch)
        assert made is not None
        saved = made
        layers.append(len(check_archive(node.store, made.manifest_key, made.manifest_digest).layers))
    node.done(CreateWorkspace(), epoch=4)
    node.done(RestorePod(spec=spec, archive=source_of(saved)), ONE, epoch=4)
    node.done(StartPod(), ONE, epoch=4)
    assert pod_differences(before, pod_tree(node.container(ONE, epoch=4).id, TOPS)) == {}
    assert min(layers) >= 2
    assert not is_worth_compacting(check_archive(node.store, saved.manifest_key, saved.manifest_digest))
