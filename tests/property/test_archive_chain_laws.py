"""Laws of chains: after any row of changes, each with its archive, each archive restores to its tree."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from node_agent.archive import changes as planning
from node_agent.archive.commit import ArchiveResult, NodeMemory, check_archive, write_archive
from node_agent.archive.compact import compact
from node_agent.archive.incremental import remember_restored
from node_agent.archive.memory import Memory
from node_agent.archive.restore import Origins, restore_archive
from node_agent.directory_store import DirectoryStore
from tests.support.archive_requests import REQUEST
from tests.support.random_trees import Tree, build, trees
from tests.support.tree_changes import Change, apply, changes
from tests.support.trees import Snapshot, differences, settle, snapshot

SEQUENCE = itertools.count()
lawful = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@dataclass
class Place:
    """A node's disk and memory, and a store."""

    folder: Path
    store: DirectoryStore
    memory: Memory
    last: ArchiveResult | None = None

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        path = self.folder / f"{next(SEQUENCE)}-{name}"
        path.mkdir()
        return path

    def archive(self, source: Path) -> ArchiveResult:
        """The next archive, on top of the last one as far as it goes."""
        request = replace(REQUEST, epoch=7, attempt=next(SEQUENCE), fingerprint={})
        node = NodeMemory(self.memory)
        if self.last:
            node = NodeMemory(self.memory, self.last.manifest_key, self.last.manifest_digest)
        settle()
        self.last = write_archive(self.store, request, source, node=node)
        return self.last

    def restored(self, made: ArchiveResult, *, remember: bool = False) -> Path:
        """An archive unpacked; the node may go on from there."""
        target = self.fresh("target")
        manifest = check_archive(self.store, made.manifest_key, made.manifest_digest)

        def note(origins: Origins) -> None:
            if remember:
                remember_restored(self.memory, manifest, made.manifest_digest, target, origins)

        restore_archive(self.store, manifest, target, meanwhile=note)
        return target


class Folding:
    """How far to fold is a question of cost alone: here any answer is given, by turns."""

    def __init__(self) -> None:
        self.answers: Iterator[int] = iter(())

    def __call__(self, live_bytes: list[int], tar_bytes: list[int], changed_bytes: int) -> int:
        return max(0, len(live_bytes) - next(self.answers))


@pytest.fixture(scope="module")
def folding() -> Iterator[Folding]:
    """The place of `folded_from`, whose own laws are in test_archive_layers.py."""
    with pytest.MonkeyPatch.context() as patch:
        folding = Folding()
        patch.setattr(planning, "folded_from", folding)
        yield folding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples of one test are built, each in a folder of its own."""
    return tmp_path_factory.mktemp("chains")


def place(folder: Path) -> Place:
    """A new one for each example."""
    here = folder / f"{next(SEQUENCE)}-place"
    here.mkdir()
    return Place(here, DirectoryStore(here / "store"), Memory(here / "memory"))


rows = st.lists(changes(), min_size=2, max_size=4)
folds = st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=8, max_size=8)


@lawful
@given(tree=trees(), rounds=rows, answers=folds)
def test_every_archive_of_a_chain_restores_to_its_tree(
    folder: Path, folding: Folding, tree: Tree, rounds: list[list[Change]], answers: list[int]
) -> None:
    """Edits that keep size and time, renames, links, types, deletions: no difference; compacted too."""
    here, folding.answers = place(folder), iter(answers)
    source = here.fresh("source")
    build(tree, source)
    made: list[tuple[Snapshot, ArchiveResult]] = [(snapshot(source), here.archive(source))]
    for row in rounds:
        apply(row, source)
        made.append((snapshot(source), here.archive(source)))
    for before, archive in made:
        assert differences(before, snapshot(here.restored(archive))) == []
        event(f"{len(archive.manifest.layers)} layers")
        smaller = compact(here.store, archive.manifest, "c1")
        assert len(smaller.manifest.blobs) == 1
        assert differences(before, snapshot(here.restored(smaller))) == []


@lawful
@given(
    tree=trees(), rounds=st.lists(changes(), min_size=2, max_size=4), answers=folds, compacted=st.booleans()
)
def test_a_restored_tree_goes_on_where_it_was(
    folder: Path,
    folding: Folding,
    tree: Tree,
    rounds: list[list[Change]],
    answers: list[int],
    compacted: bool,
) -> None:
    """Restored elsewhere after each archive, compacted meanwhile or not: the next one is of the new tree."""
    here, folding.answers = place(folder), iter(answers)
    source = here.fresh("source")
    build(tree, source)
    for row in rounds:
        made = here.archive(source)
        if compacted:
            made = here.last = compact(here.store, made.manifest, "c1")
        source = here.restored(made, remember=True)
        apply(row, source)
        before = snapshot(source)
        assert differences(before, snapshot(here.restored(here.archive(source)))) == []


@lawful
@given(tree=trees())
def test_nothing_changed_costs_nothing(folder: Path, folding: Folding, tree: Tree) -> None:
    """Not a byte but the manifest: the same blobs are named again."""
    here, folding.answers = place(folder), iter([0] * 9)
    source = here.fresh("source")
    build(tree, source)
    first = here.archive(source)
    assert here.archive(source).manifest.blobs == first.manifest.blobs
