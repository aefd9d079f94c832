"""Images in the store: each once by its id, each layer once by the digest of its unpacked tar.

    images/<id>/manifest.json       written last: the image is there if it is
    images/layers/<digest>.tar.zst  shared by all images that have the layer

A layer is known by what it unpacks to, so whoever writes one writes the same: nodes that race are harmless.
An image is alive as long as any live archive manifest has its `image_id`, or any pod is pinned to it; a
layer, as long as any image manifest names it. Whoever removes dead ones (`node_agent.image_sweep`) leaves
alone what is younger than a day: a node writes layers before the manifest that names them, and writes the
manifest of an image that it goes on having once more every few hours, so that it is young.
"""

import hashlib
import json
import secrets
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Annotated, Literal

import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from node_agent.archive.errors import ArchiveCorrupt, ArchiveError
from node_agent.archive.member_tar import END, content, members, open_tar, write_member
from node_agent.archive.progress import Progress, unwatched
from node_agent.archive.unzip import unzipped
from node_agent.store import CHUNK_BYTES, Store, StoreConflict, StoreNotFound

CONFIG_BYTES_MAX = 4 << 20
MANIFEST_BYTES_MAX = 8 << 20
# One thread, gzip's size: it is background work, done once for an image.
_ZSTD = zstandard.ZstdCompressionParameters.from_level(3, write_checksum=True)

_BLANKS = 16
IMAGES_PREFIX = "images/"
LAYERS_PREFIX = "images/layers/"

Save = Callable[[], AbstractContextManager[Iterator[bytes]]]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Layer(_Part):
    """One layer, by the digest and size of its unpacked tar."""

    diff_id: Digest
    tar_bytes: Annotated[int, Field(ge=0)]

    @property
    def key(self) -> str:
        """Where it lies."""
        return layer_key(self.diff_id)


class ImageManifest(_Part):
    """An image, complete. `config` is its configuration, exactly: its digest is the image's id."""

    format: Literal[1] = 1
    image_id: Digest
    config: str
    layers: Annotated[tuple[Layer, ...], Field(strict=False)]


class ImageUnkeepable(Exception):
    """The engine gives the image in a form that cannot be kept; the message says how."""


class ImageIncomplete(ArchiveError):
    """A layer is missing that was there just before; trying again writes it."""

    code = "image_incomplete"


def layer_key(diff_id: str) -> str:
    """The key of a layer."""
    return f"{LAYERS_PREFIX}{diff_id.removeprefix('sha256:')}.tar.zst"


def image_key(image_id: str) -> str:
    """The key of an image's manifest."""
    return f"{IMAGES_PREFIX}{image_id.removeprefix('sha256:')}/manifest.json"


def read_image(store: Store, image_id: str) -> ImageManifest | None:
    """None where it is not kept. Raises ArchiveCorrupt for one that is not what was written, StoreError."""
    try:
        data = store.get(image_key(image_id), MANIFEST_BYTES_MAX)
    except StoreNotFound:
        return None
    try:
        manifest = ImageManifest.model_validate(json.loads(data))
    except (ValueError, ValidationError) as error:
        raise ArchiveCorrupt(f"the kept image {image_id} has a manifest that cannot be read") from error
    if _digest(manifest.config.encode()) != image_id or manifest.image_id != image_id:
        raise ArchiveCorrupt(f"the kept image {image_id} is another one: its configuration's digest differs")
    return manifest


# ---- keeping ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    config: str
    # By the member's name in the saved tar.
    layers: Mapping[str, Layer]


def keep_image(
    store: Store, image_id: str, diff_ids: tuple[str, ...], save: Save, progress: Progress = unwatched
) -> ImageManifest:
    """Write what is missing of an image. `save` gives it as `docker save` does, once to learn which file is
    which layer, and once more if a layer is missing.

    Raises ImageUnkeepable, ImageIncomplete, StoreError, StepError of `save`.
    """
    with save() as chunks:
        found = _look_through(chunks, image_id, frozenset(diff_ids))
    sizes = {layer.diff_id: layer for layer in found.layers.values()}
    if missing := [diff_id for diff_id in diff_ids if diff_id not in sizes]:
        raise ImageUnkeepable(
            f"the engine does not give the layer {missing[0]} of {image_id} as it is unpacked"
        )
    absent = {name: layer for name, layer in found.layers.items() if store.head(layer.key) is None}
    if absent:
        with save() as chunks:
            _write_layers(store, chunks, absent, progress)
    layers = tuple(sizes[diff_id] for diff_id in diff_ids)
    manifest = ImageManifest(image_id=image_id, config=found.config, layers=layers)
    _put(store, manifest)
    if missing := missing_layers(store, manifest):
        raise ImageIncomplete(f"{missing[0]} was cleared away while the image {image_id} was written")
    return manifest


def missing_layers(store: Store, manifest: ImageManifest) -> list[str]:
    """The keys of an image's layers that are not in the store."""
    return [layer.key for layer in manifest.layers if store.head(layer.key) is None]


def renew(store: Store, manifest: ImageManifest) -> None:
    """Write the manifest once more, so that nobody takes the image for forgotten.

    Each time other bytes: a store that deletes on condition of the content must see that it was renewed.
    """
    blanks = bytes(secrets.choice(b" \n\t") for _ in range(_BLANKS))
    store.put_manifest(image_key(manifest.image_id), _written(manifest) + blanks, only_if_absent=False)


def _look_through(chunks: Iterator[bytes], image_id: str, wanted: Collection[str]) -> _Found:
    """The configuration and the layers among a saved image's files, known by their digests alone."""
    config, layers = None, {}
    with open_tar(chunks) as tar:
        for info in members(tar):
            if not info.isreg():
                continue
            running, kept = hashlib.sha256(), bytearray()
            for chunk in content(tar, info):
                running.update(chunk)
                if info.size <= CONFIG_BYTES_MAX:
                    kept += chunk
            digest = f"sha256:{running.hexdigest()}"
            if digest == image_id:
                config = bytes(kept).decode()
            elif digest in wanted:
                layers[info.name] = Layer(diff_id=digest, tar_bytes=info.size)
    if not config:
        raise ImageUnkeepable(f"the engine's image {image_id} has no configuration of that digest")
    return _Found(config, layers)


def _write_layers(
    store: Store, chunks: Iterator[bytes], absent: Mapping[str, Layer], progress: Progress
) -> None:
    total, done = sum(layer.tar_bytes for layer in absent.values()), 0
    with open_tar(chunks) as tar:
        for info in members(tar):
            if info.name in absent:
                _write_layer(store, absent[info.name], content(tar, info))
                done += info.size
                progress(done, total)


def _write_layer(store: Store, layer: Layer, data: Iterator[bytes]) -> None:
    stream = zstandard.ZstdCompressor(compression_params=_ZSTD).chunker(chunk_size=CHUNK_BYTES)
    running = hashlib.sha256()
    with store.open_writer(layer.key) as writer:
        for chunk in data:
            running.update(chunk)
            for compressed in stream.compress(chunk):
                writer.write(compressed)
        for compressed in stream.finish():  # type: ignore[no-untyped-call]
            writer.write(compressed)
        if f"sha256:{running.hexdigest()}" != layer.diff_id:
            raise ImageUnkeepable(f"the engine gave the layer {layer.diff_id} otherwise the second time")
        with suppress(StoreConflict):  # another node was faster, with the same layer
            writer.commit()


def _put(store: Store, manifest: ImageManifest) -> None:
    try:
        store.put_manifest(image_key(manifest.image_id), _written(manifest))
    except StoreConflict:
        # Another node was faster; what it says of the same image is as good, if it can be read.
        read_image(store, manifest.image_id)


def _written(manifest: ImageManifest) -> bytes:
    return json.dumps(manifest.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


# ---- loading ---------------------------------------------------------------------------------------------


def load_tar(
    store: Store, manifest: ImageManifest, chains: Collection[tuple[str, ...]], progress: Progress = unwatched
) -> Iterator[bytes]:
    """What `docker load` reads, without the layers of stacks that the engine has.

    Raises ArchiveCorrupt where a layer is not what its digest says: the engine notices as well.
    """
    stack = tuple(layer.diff_id for layer in manifest.layers)
    fetched = [layer for end, layer in enumerate(manifest.layers) if stack[: end + 1] not in chains]
    name = f"{manifest.image_id.removeprefix('sha256:')}.json"
    paths = {layer.diff_id: f"{layer.diff_id.removeprefix('sha256:')}/layer.tar" for layer in manifest.layers}
    index = [{"Config": name, "RepoTags": None, "Layers": [paths[diff_id] for diff_id in stack]}]
    yield from _file(name, manifest.config.encode())
    total, done = sum(layer.tar_bytes for layer in fetched), 0
    for layer in {layer.diff_id: layer for layer in fetched}.values():
        info = tarfile.TarInfo(paths[layer.diff_id])
        info.size = layer.tar_bytes
        for piece in write_member(info, layer_tar(store, layer)):
            yield piece
            done += len(piece)
            progress(min(done, total), total)
    yield from _file("manifest.json", json.dumps(index).encode())
    yield END


def layer_tar(store: Store, layer: Layer) -> Iterator[bytes]:
    """A layer's tar. Ends only if it was of this digest and size; else ArchiveCorrupt, or StoreError."""
    running, size_bytes = hashlib.sha256(), 0
    try:
        with store.open_reader(layer.key) as chunks:
            for data in unzipped(chunks, layer.key):
                running.update(data)
                size_bytes += len(data)
                yield data
    except StoreNotFound as error:
        raise ArchiveCorrupt(f"the image layer {layer.key} is not in the store") from error
    if size_bytes != layer.tar_bytes or f"sha256:{running.hexdigest()}" != layer.diff_id:
        raise ArchiveCorrupt(f"the image layer {layer.key} is not what its digest says")


def _file(name: str, data: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    yield from write_member(info, iter((data,)))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
