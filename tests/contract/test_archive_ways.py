"""Both ways to a pod's changes, on the real engine: what is saved one way comes back by either.

The fast way gives back all of it; the safe way all but what its notices name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from node_agent.archive.commit import read_manifest
from node_agent.archive.safe_capture import LOSSES
from node_agent.archive.safe_restore import LOST_AT_RESTORE
from node_agent.docker_files import SCRATCH_LABEL
from node_agent.facts import find_facts
from node_agent.ways import Way, Ways, probe
from state.wire import ArchiveMade, CreateWorkspace, PodSpec, RestorePod, StartPod
from tests.support.docker_node import DockerNode, own_pod, pod_image, source_of
from tests.support.pod_tree import differences, pod_tree
from tests.support.small_images import run
from tests.support.vandalism import CAPABILITY, NAMES, TOPS, VANDALISM

POD = own_pod("ways")
MTIME, XATTRS = 3, 6
# Where the engine's listing does not tell of a change.
UNTOLD = {"/usr/share/common-licenses": "only the time of a folder of the image was changed"}
KEPT_BY_THE_SAFE_WAY = {"security.capability"}


class Saved(NamedTuple):
    """One stopped pod, as it was while it ran, saved both ways."""

    node: DockerNode
    tree: dict[str, Any]
    archives: dict[Way, ArchiveMade]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    """A pod that its user has laid waste to."""
    node = DockerNode(tmp_path_factory.mktemp("ways"))
    try:
        node.running_pod(POD)
        done = node.run(POD, f"{VANDALISM}\n{CAPABILITY}\n{NAMES}\necho done", user="root")
        assert done.endswith("done\n")
        tree = pod_tree(node.container(POD).id, TOPS)
        node.stop(POD)
        archives = {way: saved_by(node, way) for way in Way}
        yield Saved(node, tree, archives)
    finally:
        node.clean_up()


def go(node: DockerNode, way: Way) -> None:
    """The agent is started anew with this way set."""
    node.settings = node.settings.model_copy(update={"archive_way": way})
    node.restart()


def saved_by(node: DockerNode, way: Way) -> ArchiveMade:
    """Saved this way."""
    go(node, way)
    return node.saved(POD)


def restored_by(saved: Saved, way: Way, source: ArchiveMade, epoch: int) -> dict[str, Any]:
    """Restored this way at a new placement, and started: what the pod sees."""
    node = saved.node
    go(node, way)
    node.done(CreateWorkspace(), epoch=epoch)
    (node.files(epoch) / "work").write_text("kept")
    spec = PodSpec(name="ide", image=pod_image(), image_id=source.image_id)
    node.done(RestorePod(spec=spec, archive=source_of(source)), POD, epoch=epoch)
    node.done(StartPod(), POD, epoch=epoch)
    return pod_tree(node.container(POD, epoch).id, TOPS)


def by_the_safe_way(tree: dict[str, Any], *, captured: bool) -> dict[str, Any]:
    """What the safe way may leave of a tree, by its notices."""
    return {path: _less(facts, captured=captured) for path, facts in tree.items() if path not in UNTOLD}


def _less(facts: list[Any], *, captured: bool) -> list[Any]:
    mtime_ns, xattrs = facts[MTIME], facts[XATTRS]
    if captured:
        mtime_ns = mtime_ns // 10**9 * 10**9
        xattrs = {name: value for name, value in xattrs.items() if name in KEPT_BY_THE_SAFE_WAY}
    return [*facts[:MTIME], max(0, mtime_ns), *facts[MTIME + 1 : XATTRS], xattrs]


def test_what_is_saved_and_restored_the_fast_way_is_all_of_it(saved: Saved) -> None:
    """No difference whatever."""
    found = restored_by(saved, Way.FAST, saved.archives[Way.FAST], epoch=2)
    assert differences(saved.tree, found) == {}


@pytest.mark.parametrize("way", list(Way))
def test_what_is_saved_the_safe_way_comes_back_but_for_what_is_told(saved: Saved, way: Way) -> None:
    """Deletions, owners, modes, capabilities, strange names: all there; the notices name what is not."""
    made = saved.archives[Way.SAFE]
    found = restored_by(saved, way, made, epoch=3 if way is Way.FAST else 4)
    expected = by_the_safe_way(saved.tree, captured=True)
    assert differences(expected, by_the_safe_way(found, captured=True)) == {}
    assert set(LOSSES) <= set(made.notices)


def test_what_is_saved_the_fast_way_is_restored_the_safe_way_but_for_old_times(saved: Saved) -> None:
    """Also attributes, ACLs and parts of seconds; the workspace under the mount point is not touched."""
    found = restored_by(saved, Way.SAFE, saved.archives[Way.FAST], epoch=5)
    expected = {path: _less(facts, captured=False) for path, facts in saved.tree.items()}
    assert differences(expected, found) == {}
    assert (saved.node.files(epoch=5) / "work").read_text() == "kept"


def test_the_manifest_says_which_way_it_was(saved: Saved) -> None:
    """In its method."""
    methods = {
        way: read_manifest(saved.node.store, made.manifest_key, made.manifest_digest).method
        for way, made in saved.archives.items()
    }
    assert methods == {Way.FAST: "overlay2-upper", Way.SAFE: "engine-api"}


def test_the_safe_way_leaves_nothing_behind(saved: Saved) -> None:
    """No scratch folder, no shut gate, no half container: not after four restores either."""
    folder = saved.node.settings.data_dir
    left = [path.name for path in folder.rglob("*") if path.name in ("gate", "removals", "tree")]
    assert left == []
    assert not any("partial" in seen.name for seen in saved.node.parts.runtime.look().containers)


def test_the_probe_finds_the_fast_way_on_overlay2(saved: Saved) -> None:
    """By writing through the engine, and reading the directory; and the reverse."""
    assert probe(saved.node.parts.runtime) == ""


def test_a_node_tells_its_way_and_what_that_costs(saved: Saved) -> None:
    """In its facts, which people see."""
    go(saved.node, Way.SAFE)
    facts = find_facts(saved.node.parts)
    assert facts.archive_way == Way.SAFE
    assert LOST_AT_RESTORE in facts.notices
    saved.node.settings = saved.node.settings.model_copy(update={"archive_way": "auto"})
    saved.node.restart()
    assert find_facts(saved.node.parts).archive_way == Way.FAST


def test_scratch_folders_of_a_former_run_are_swept(saved: Saved, tmp_path: Path) -> None:
    """An agent that was killed in the middle leaves one; the next one removes it at its start."""
    ways = Ways(saved.node.parts.runtime, "safe", tmp_path / "scratch")
    (tmp_path / "scratch" / "left" / "tree").mkdir(parents=True)
    ways.sweep()
    assert not (tmp_path / "scratch").exists()


def test_what_a_killed_probe_left_on_the_engine_goes_with_the_next_one(saved: Saved) -> None:
    """Its container, and its image."""
    runtime = saved.node.parts.runtime
    killed = runtime.files.scratch_container()
    killed.__enter__()
    assert probe(runtime) == ""
    node_id = saved.node.node_id
    assert run("ps", "-aq", "--filter", f"label={SCRATCH_LABEL}={node_id}") == ""
    assert run("images", "-q", "--filter", f"reference=codepods-scratch:{node_id}-*") == ""
