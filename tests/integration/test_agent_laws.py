"""The laws that protect people's work, on real containers, real volumes and a real store."""

import gc
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent import labels
from node_agent.labels import POD
from node_agent.removal import sweep_all
from node_agent.runtime import Status, VolumeState
from state import wire
from tests.support.docker_node import ONE, TWO, DockerNode, pod_image, proof_of, source_of

# Small, and exits at once: enough wherever the IDE itself is not needed.
PLAIN_IMAGE = "debian:bookworm-slim"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own."""
    node = DockerNode(tmp_path)
    yield node
    node.clean_up()


def spec(image: str = PLAIN_IMAGE, **more: str) -> wire.PodSpec:
    """What a pod is made of."""
    return wire.PodSpec.model_validate({"name": "ide", "image": image, **more})


def docker(*arguments: str) -> str:
    """By hand."""
    return subprocess.run(["docker", *arguments], capture_output=True, check=True, text=True).stdout


# ---- LAW 8: never remove the only copy -----------------------------------------------------------------


def test_a_container_that_ran_again_since_it_was_saved_is_kept(node: DockerNode) -> None:
    """An archive proves that a copy may go only while the container is as it was then."""
    container = node.stopped_pod(ONE, image=PLAIN_IMAGE)
    made = node.saved(ONE)
    subprocess.run(["docker", "start", "-a", container.id], check=True, capture_output=True)
    result = node.refused(wire.RemovePod(proof=proof_of(made)), ONE)
    assert result.code == "proof_void"
    assert node.has_container(ONE)


def test_a_container_is_kept_when_its_archive_is_not_whole_in_the_store(node: DockerNode) -> None:
    """A manifest whose blob is gone, or a manifest that is gone, proves nothing."""
    node.stopped_pod(ONE, image=PLAIN_IMAGE)
    made = node.saved(ONE)
    folder = (node.store_dir / made.manifest_key).parent
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "manifest.json"):
        path.unlink()
        assert node.refused(wire.RemovePod(proof=proof_of(made)), ONE).code == "archive_corrupt"
    assert node.has_container(ONE)


def test_another_pods_archive_is_no_proof(node: DockerNode) -> None:
    """A proof must be of this very pod."""
    node.stopped_pod(ONE, image=PLAIN_IMAGE)
    node.stopped_pod(TWO, image=PLAIN_IMAGE)
    proof = proof_of(node.saved(TWO))
    assert node.refused(wire.RemovePod(proof=proof), ONE).code == "proof_void"
    mine = proof.model_copy(update={"fingerprint": node.container(ONE).fingerprint})
    assert node.refused(wire.RemovePod(proof=mine), ONE).code == "archive_of_another"
    assert node.has_container(ONE)


def test_a_workspace_that_changed_since_it_was_saved_is_kept(node: DockerNode) -> None:
    """One byte written after the archive, and the volume stays."""
    node.done(wire.CreateWorkspace())
    made = node.saved()
    (node.files() / "late").write_text("x")
    assert node.refused(wire.RemoveWorkspace(proof=proof_of(made))).code == "proof_void"
    assert (node.files() / "late").exists()


def test_a_tombstone_of_an_earlier_generation_removes_nothing(node: DockerNode) -> None:
    """A container made after a deletion is not what was deleted."""
    node.stopped_pod(ONE, image=PLAIN_IMAGE)
    assert node.refused(wire.RemovePod(proof=wire.TombstoneProof(generation=0)), ONE).code == "proof_void"
    assert node.has_container(ONE)


# ---- LAW 7: no archive of what still runs --------------------------------------------------------------


def test_what_runs_is_not_archived(node: DockerNode) -> None:
    """Neither a running pod nor its workspace is saved, and both are kept."""
    node.running_pod(ONE)
    assert node.refused(wire.ArchivePod(number=1), ONE).code == "pod_running"
    assert node.refused(wire.ArchiveWorkspace(number=1)).code == "workspace_in_use"
    assert node.container(ONE).status is Status.RUNNING


def test_a_failed_archive_keeps_the_container(node: DockerNode) -> None:
    """With the store out of reach, the pod stays as it is, and the message says what to do."""
    node.stopped_pod(ONE, image=PLAIN_IMAGE)
    shutil.rmtree(node.store_dir)
    node.store_dir.write_text("in the way")
    result = node.refused(wire.ArchivePod(number=1), ONE)
    assert result.code.startswith("store_")
    assert not result.permanent
    assert node.has_container(ONE)


# ---- LAW 5: epochs fence -------------------------------------------------------------------------------


def test_an_action_of_an_earlier_placement_is_refused(node: DockerNode) -> None:
    """Once a node has seen epoch 2 of a workspace, nothing of epoch 1 is started, saved or removed."""
    node.stopped_pod(ONE, image=PLAIN_IMAGE)
    made = node.saved(ONE)
    node.done(wire.CreateWorkspace(), epoch=2)
    for step in (
        wire.StartPod(),
        wire.StopPod(),
        wire.ArchivePod(number=2),
        wire.RemovePod(proof=proof_of(made)),
    ):
        assert node.refused(step, ONE, epoch=1).code == "stale_epoch"
    assert node.has_container(ONE, epoch=1)


def test_epochs_are_remembered_across_a_restart(node: DockerNode) -> None:
    """The journal keeps the highest epoch though nothing on the node carries it."""
    node.refused(wire.StartPod(), ONE, epoch=7)
    node.restart()
    assert node.refused(wire.StartPod(), ONE, epoch=6).code == "stale_epoch"


def test_containers_of_an_earlier_placement_are_never_started(node: DockerNode) -> None:
    """A pod placed here anew does not take over the container that an earlier placement left."""
    node.stopped_pod(ONE, image=PLAIN_IMAGE)
    assert node.refused(wire.StartPod(), ONE, epoch=2).code == "pod_absent"
    assert node.container(ONE, epoch=1).status is Status.CREATED


# ---- nothing half-made is used -------------------------------------------------------------------------


def test_a_restore_that_fails_leaves_nothing_that_could_be_started(node: DockerNode) -> None:
    """A blob that is not what was archived is noticed, and the half-made container is gone."""
    node.stopped_pod(ONE, image=PLAIN_IMAGE)
    made = node.saved(ONE)
    node.done(wire.RemovePod(proof=proof_of(made)), ONE)
    blob = next(p for p in (node.store_dir / made.manifest_key).parent.iterdir() if p.suffix == ".zst")
    content = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(content[:-4] + b"oops")
    step = wire.RestorePod(spec=spec(image_id=made.image_id or ""), archive=source_of(made))
    assert node.refused(step, ONE).code == "restore_corrupt"
    assert node.parts.runtime.of_pod(ONE) == ()
    blob.write_bytes(content)
    node.done(step, ONE)
    assert node.container(ONE).quiet


def test_a_half_made_container_is_not_the_pod(node: DockerNode) -> None:
    """What has a temporary name is neither started nor taken for the pod, and a new attempt sweeps it."""
    container = node.stopped_pod(ONE, image=PLAIN_IMAGE)
    made = node.saved(ONE)
    node.parts.runtime.rename(container.id, labels.partial_name(ONE, 1, 99))
    assert node.refused(wire.StartPod(), ONE).code == "pod_absent"
    node.done(wire.RestorePod(spec=spec(), archive=source_of(made)), ONE)
    assert [found.name for found in node.parts.runtime.of_pod(ONE)] == [labels.container_name(ONE, 1)]


def test_a_half_restored_volume_is_not_used_and_is_swept(node: DockerNode) -> None:
    """A volume that was being filled when the agent died is made anew."""
    node.done(wire.CreateWorkspace())
    (node.files() / "file").write_text("x")
    made = node.saved()
    node.parts.host.mark(node.volume(), VolumeState.HALF)
    assert node.refused(wire.CreatePod(spec=spec()), ONE).code == "workspace_absent"
    assert sweep_all(node.parts) == 1
    node.done(wire.RestoreWorkspace(archive=source_of(made)))
    assert (node.files() / "file").read_text() == "x"


def test_a_volume_with_files_and_no_marker_is_left_alone(node: DockerNode) -> None:
    """What nobody vouches for is neither used nor removed (LAW 9)."""
    node.done(wire.CreateWorkspace())
    (node.files() / "file").write_text("x")
    (node.files().parent / "codepods.json").unlink()
    assert node.refused(wire.CreateWorkspace()).code == "workspace_strange"
    assert sweep_all(node.parts) == 0
    assert (node.files() / "file").exists()


def test_a_volume_that_the_engine_has_made_by_halves_is_made_anew(node: DockerNode) -> None:
    """An engine that is killed in the middle of that knows it afterwards, empty and without labels. One with
    files in it is somebody's: it is left alone."""
    name = labels.volume_name(node.workspace_id, 1)
    docker("volume", "create", name)
    try:
        file = Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", name).strip()) / "file"
        file.touch()
        assert node.refused(wire.CreateWorkspace()).code == "name_taken"
        file.unlink()
        node.done(wire.CreateWorkspace())
        assert node.volume().labels[labels.NODE] == node.node_id
    finally:
        docker("volume", "rm", "--force", name)


# ---- bad input -----------------------------------------------------------------------------------------


def test_an_image_that_is_nowhere_is_named_in_the_message(node: DockerNode) -> None:
    """The message says which image, and what to do."""
    node.done(wire.CreateWorkspace())
    result = node.refused(wire.CreatePod(spec=spec("127.0.0.1:1/no/such-image:1")), ONE)
    assert result.code == "image_not_found"
    assert "127.0.0.1:1/no/such-image:1" in result.message


def test_a_pod_that_exits_at_once_says_so_with_its_last_lines(node: DockerNode) -> None:
    """An image that does not serve an IDE fails its start, and is not started over and over."""
    node.stopped_pod(ONE, image=PLAIN_IMAGE)
    assert node.refused(wire.StartPod(), ONE).code == "exited_at_start"
    assert node.container(ONE).status is Status.EXITED


def test_a_node_without_a_sandbox_starts_no_pods_unless_that_was_accepted(tmp_path: Path) -> None:
    """Without Sysbox and without the operator's word, the message says how to give either."""
    node = DockerNode(tmp_path, accept_unsandboxed=False)
    try:
        node.done(wire.CreateWorkspace())
        result = node.refused(wire.CreatePod(spec=spec()), ONE)
        assert result.code == "no_sandbox"
        assert "CODEPODS_AGENT_ACCEPT_UNSANDBOXED" in result.message
    finally:
        node.clean_up()


# The docker SDK leaves the socket of a failed connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_is_not_there_is_said_to_be_unavailable(tmp_path: Path) -> None:
    """Without an engine nothing is concluded."""
    node = DockerNode(tmp_path, docker_host=f"unix://{tmp_path}/no.sock")
    result = node.refused(wire.StartPod(), ONE)
    assert (result.code, result.permanent) == ("engine_unavailable", False)
    gc.collect()


# ---- other hands on the engine -------------------------------------------------------------------------


def test_two_nodes_on_one_engine_see_only_their_own(node: DockerNode, tmp_path: Path) -> None:
    """Each agent lists what carries its own label."""
    node.stopped_pod(ONE, image=PLAIN_IMAGE)
    other = DockerNode(tmp_path / "other")
    try:
        assert other.parts.runtime.look().containers == ()
        assert other.parts.runtime.of_pod(ONE) == ()
        assert [c.labels[POD] for c in node.parts.runtime.look().containers] == [ONE]
    finally:
        other.clean_up()


def test_a_pod_starts_although_its_network_was_pruned(node: DockerNode) -> None:
    """`docker network prune` takes networks of stopped pods; they are made again."""
    node.stopped_pod(ONE, image=pod_image())
    subprocess.run(["docker", "network", "rm", node.parts.network.name], check=True, capture_output=True)
    node.done(wire.StartPod(), ONE)


def test_a_paused_pod_goes_on_when_it_is_wanted(node: DockerNode) -> None:
    """Starting a pod that somebody paused by hand lets it go on."""
    container = node.running_pod(ONE)
    subprocess.run(["docker", "pause", container.id], check=True, capture_output=True)
    node.done(wire.StartPod(), ONE)
    assert node.container(ONE).status is Status.RUNNING
    assert node.container(ONE).started_at == container.started_at
