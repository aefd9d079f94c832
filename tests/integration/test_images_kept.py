"""Images of pods in the store: once each, layers shared, and loaded where neither image nor registry is."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from node_agent.archive.errors import ArchiveCorrupt
from node_agent.archive.image_store import (
    ImageManifest,
    image_key,
    layer_key,
    layer_tar,
    load_tar,
    read_image,
)
from node_agent.docker_images import DockerImages
from node_agent.errors import StepError
from node_agent.images import Images
from state.wire import ArchiveProof, CreateWorkspace, PodSpec, RemovePod, RestorePod
from tests.support.docker_node import DockerNode, own_pod, source_of
from tests.support.small_images import Small, run
from tests.support.vfs_engine import IMAGE

POD = own_pod("kept")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own."""
    node = DockerNode(tmp_path)
    yield node
    node.clean_up()


def keys(node: DockerNode, prefix: str) -> list[str]:
    """What the store has."""
    return sorted(node.store.list(prefix))


def test_a_pod_comes_back_where_neither_its_image_nor_a_registry_is(node: DockerNode, small: Small) -> None:
    """Its image is in the store; loaded, it has the same id."""
    pod = node.stopped_pod(POD, image=small.names[1])
    saved = node.saved(POD)
    assert node.parts.images.keep_all() == 1
    node.parts.runtime.remove(pod.id)
    small.remove()
    assert node.parts.runtime.image_id(small.ids[1]) is None

    node.done(CreateWorkspace(), epoch=2)
    spec = PodSpec(name="ide", image="registry.invalid/gone:1")
    node.done(RestorePod(spec=spec, archive=source_of(saved)), POD, epoch=2)
    assert node.container(POD, epoch=2).image_id == small.ids[1]


def test_layers_are_stored_once_and_nothing_is_written_twice(node: DockerNode, small: Small) -> None:
    """Two images of one base have one base layer in the store; a second look writes nothing."""
    images = Images(node.parts.runtime, node.store)
    assert [images.keep(image_id) for image_id in small.ids] == [True, True]
    assert len(keys(node, "images/layers/")) == 2
    stacks = [[layer.diff_id for layer in kept(node, image_id).layers] for image_id in small.ids]
    assert stacks[0] == stacks[1][:1]
    assert [images.keep(image_id) for image_id in small.ids] == [False, False]
    again = Images(node.parts.runtime, node.store)
    assert [again.keep(image_id) for image_id in small.ids] == [False, False]


def kept(node: DockerNode, image_id: str) -> ImageManifest:
    """The image's manifest, which must be there."""
    found = read_image(node.store, image_id)
    assert found is not None
    return found


def test_only_layers_that_are_not_here_are_fetched(node: DockerNode, small: Small) -> None:
    """The base is on the node: nothing of it is sent to the engine, or read from the store."""
    images = Images(node.parts.runtime, node.store)
    images.keep(small.ids[1])
    manifest = kept(node, small.ids[1])
    base, top = manifest.layers
    node.store.delete(base.key)
    run("rmi", small.names[1])
    assert images.fetch(small.ids[1], lambda done, total: None)
    sent = sum(map(len, load_tar(node.store, manifest, {(base.diff_id,)})))
    assert sent < top.tar_bytes + 20_000


def test_what_was_changed_in_the_store_is_noticed(node: DockerNode, small: Small) -> None:
    """A layer or a manifest that is not what its digest says is not used."""
    images = Images(node.parts.runtime, node.store)
    images.keep(small.ids[1])
    manifest = kept(node, small.ids[1])
    other = layer_key(manifest.layers[0].diff_id)
    path = node.store_dir / layer_key(manifest.layers[1].diff_id)
    path.write_bytes((node.store_dir / other).read_bytes())
    with pytest.raises(ArchiveCorrupt, match="digest"):
        list(layer_tar(node.store, manifest.layers[1]))
    small.remove()
    with pytest.raises(StepError, match="digest"):
        images.fetch(small.ids[1], lambda done, total: None)
    key = node.store_dir / image_key(small.ids[1])
    key.write_text(json.dumps({**json.loads(key.read_text()), "config": "{}"}))
    with pytest.raises(StepError, match="another one"):
        images.fetch(small.ids[1], lambda done, total: None)


def test_an_image_that_is_not_kept_is_looked_for_elsewhere(node: DockerNode) -> None:
    """In its registry, as before."""
    assert not node.parts.images.fetch("sha256:" + "0" * 64, lambda done, total: None)
    assert not node.parts.images.fetch(IMAGE, lambda done, total: None)


def test_what_was_cleared_away_is_written_again_by_whoever_has_it(node: DockerNode, small: Small) -> None:
    """A layer, a manifest: at the next renewal; and what is there is renewed, so that it counts as used."""
    assert Images(node.parts.runtime, node.store).keep(small.ids[1])
    key, layer = image_key(small.ids[1]), kept(node, small.ids[1]).layers[1].key
    (before,) = node.store.entries(key)
    assert not Images(node.parts.runtime, node.store).keep(small.ids[1])
    (after,) = node.store.entries(key)
    assert after.version != before.version
    for gone in (layer, key):
        node.store.delete(gone)
        assert Images(node.parts.runtime, node.store).keep(small.ids[1])
        assert node.store.head(gone) is not None


def test_the_image_of_a_pod_that_went_before_anybody_looked_is_kept(node: DockerNode, small: Small) -> None:
    """Archived and removed between two looks: the image is still on the node."""
    pod = node.stopped_pod(POD, image=small.names[1])
    saved = node.saved(POD)
    proof = ArchiveProof(
        manifest_key=saved.manifest_key,
        manifest_digest=saved.manifest_digest,
        fingerprint=saved.fingerprint,
    )
    node.done(RemovePod(proof=proof), POD)
    assert node.parts.runtime.inspect(pod.id) is None
    assert node.parts.images.keep_all() == 1
    assert kept(node, small.ids[1])


class _RemovesMeanwhile(docker.APIClient):
    """The engine's client, on a machine where somebody removes an image between a list and a look."""

    meanwhile: Callable[[], None]

    def images(self, *arguments: Any, **options: Any) -> Any:
        """What is there; and then it is not."""
        listed = super().images(*arguments, **options)
        self.meanwhile()
        return listed


def test_an_image_that_goes_while_all_are_looked_at_is_not_there(small: Small) -> None:
    """Other images on the machine come and go: no step fails for that."""
    client = _RemovesMeanwhile()
    client.meanwhile = small.remove
    layers = DockerImages(lambda: client).layers_of(small.ids[1])

    chains = DockerImages(lambda: client).chains()

    assert layers not in chains
