"""A pod as an OCI image: the layers of its image as they are, and one more with the changes.

The changes' layer is made twice, once for its digest and once to be sent: nothing is spooled. `docker load`
reads it as well (also an old one, by the `manifest.json` of its own), and so do skopeo, podman and crane.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from node_agent.archive.export import OPAQUE, ExportRefused, Lost, Part
from node_agent.archive.image_store import ImageManifest, layer_tar, read_image
from node_agent.archive.layer_stream import tree_tar
from node_agent.archive.manifest import Manifest
from node_agent.archive.member_tar import END, content, members, open_tar, write_member
from node_agent.store import Store
from state.model import OCI_NOT_KEPT, TargetKind

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
WORKSPACES = "workspaces"
# What the changes' layer says in the image's history: so that an import knows its own.
MADE_BY = "codepods: archive "
# In a layer, a name that begins so is not a file: it says that one is deleted.
_DELETED = ".wh."
_MARK_LIKE = re.compile(r"_*\.wh\.")
_ATTRIBUTES = "SCHILY.xattr."
_OVERLAY_MARKS = f"{_ATTRIBUTES}trusted.overlay."
_CAPABILITIES = f"{_ATTRIBUTES}security.capability"


@dataclass(frozen=True, slots=True)
class _Blob:
    digest: str
    size_bytes: int
    media_type: str

    @property
    def path(self) -> str:
        return f"blobs/{self.digest.replace(':', '/')}"

    def described(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}


def as_oci(store: Store, parts: Sequence[Part]) -> Iterator[bytes]:
    """An OCI image layout in a tar. Raises ExportRefused without a pod, or without its image in the store."""
    pod = next((part.manifest for part in parts if part.manifest.kind is TargetKind.POD), None)
    if pod is None or pod.image_id is None:
        raise ExportRefused(
            "An image is of a pod, not of files alone. Take --what pod or --what all, or a tar."
        )
    image = read_image(store, pod.image_id)
    if image is None:
        raise ExportRefused(
            f"The image {pod.image_id} is not in the store yet; its node copies it there. Ask again, or take "
            "a tar."
        )
    lost = Lost()
    changes = _measured(_changes(store, parts, lost))
    yield from _layout(store, image, pod, parts, changes, lost)


def _layout(
    store: Store, image: ImageManifest, pod: Manifest, parts: Sequence[Part], changes: _Blob, lost: Lost
) -> Iterator[bytes]:
    below = [_Blob(layer.diff_id, layer.tar_bytes, LAYER) for layer in image.layers]
    config = _config(image, pod, changes)
    written = {
        CONFIG: config,
        MANIFEST: _manifest(_blob(config, CONFIG), [*below, changes], lost),
    }
    name = f"codepods/{pod.target_id}:{pod.number}"
    yield from _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield from _file("index.json", _index(_blob(written[MANIFEST], MANIFEST), name))
    for media_type, data in written.items():
        yield from _file(_blob(data, media_type).path, data)
    docker = [{"Config": _blob(config, CONFIG).path, "RepoTags": [name]}]
    docker[0]["Layers"] = [blob.path for blob in (*below, changes)]
    yield from _file("manifest.json", _json(docker))
    for layer in {layer.diff_id: layer for layer in image.layers}.values():
        yield from _member(_Blob(layer.diff_id, layer.tar_bytes, LAYER), layer_tar(store, layer))
    yield from _member(changes, _changes(store, parts, Lost()))
    yield END


def _changes(store: Store, parts: Sequence[Part], lost: Lost) -> Iterator[bytes]:
    """The layer: the same bytes each time."""
    for part in parts:
        folder = "" if part.manifest.kind is TargetKind.POD else f"{WORKSPACES}/"
        with open_tar(tree_tar(store, part.manifest)) as tar:
            for info in members(tar):
                yield from _in_layer(tar, info, folder, lost)
    yield END


def _in_layer(tar: tarfile.TarFile, info: tarfile.TarInfo, folder: str, lost: Lost) -> Iterator[bytes]:
    name = info.name.removeprefix("./")
    if name == ".":
        name = ""
    if not name and not folder:
        return
    if info.ischr() and (info.devmajor, info.devminor) == (0, 0):
        yield from _deleted(folder, name, lost)
        return
    opaque = info.pax_headers.get(OPAQUE) == "y"
    headers = info.pax_headers.items()
    info.pax_headers = {key: value for key, value in headers if not key.startswith(_OVERLAY_MARKS)}
    _tell(info, name, lost)
    info.name = (folder + _escaped(name, lost)).rstrip("/")
    if info.islnk():
        info.linkname = folder + _escaped(info.linkname.removeprefix("./"), Lost())
    yield from write_member(info, content(tar, info))
    if opaque:
        yield from _file(f"{info.name}/{_DELETED}{_DELETED}.opq", b"")


def _tell(info: tarfile.TarInfo, name: str, lost: Lost) -> None:
    """What the layer has not, or has and `docker load` (20.10) or what comes after it leaves out."""
    if any(key.startswith("GNU.sparse") for key in info.pax_headers):
        lost.add("holes in files, written out", name)
    if info.mtime < 0:
        lost.add("times before 1970, which are in it, and become 1970 in docker load", name)
    if any(key.startswith(_ATTRIBUTES) and key != _CAPABILITIES for key in info.pax_headers):
        lost.add(
            "extended attributes and ACLs, which are in it, and are left out by docker save and commit", name
        )


def _deleted(folder: str, name: str, lost: Lost) -> Iterator[bytes]:
    above, _, base = name.rpartition("/")
    if base.startswith(_DELETED):
        lost.add(f"deleted files of the image whose names begin with {_DELETED}, which come back", name)
        return
    parent = f"{folder}{_escaped(above, Lost())}/" if above else folder
    yield from _file(f"{parent}{_DELETED}{base}", b"")


def _escaped(name: str, lost: Lost) -> str:
    """Each part that a layer would take for a mark gets an underscore in front; and so do those that look as
    if they had one already, so that an import can take it off again."""
    if not any(_MARK_LIKE.match(part) for part in name.split("/")):
        return name
    lost.add(f"names that begin with {_DELETED}, written with an underscore in front", name)
    return "/".join(f"_{part}" if _MARK_LIKE.match(part) else part for part in name.split("/"))


def _config(image: ImageManifest, pod: Manifest, changes: _Blob) -> bytes:
    config: dict[str, Any] = json.loads(image.config)
    config["rootfs"]["diff_ids"].append(changes.digest)
    said = f"{MADE_BY}{pod.number} of {pod.target_id}"
    config.setdefault("history", []).append({"created": pod.created_at.isoformat(), "created_by": said})
    config["created"] = pod.created_at.isoformat()
    return _json(config)


def _manifest(config: _Blob, layers: Sequence[_Blob], lost: Lost) -> bytes:
    described = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.described(),
        "layers": [layer.described() for layer in layers],
        "annotations": {OCI_NOT_KEPT: "; ".join(lost.sentences()) or "nothing that is known"},
    }
    return _json(described)


def _index(manifest: _Blob, name: str) -> bytes:
    named = {**manifest.described(), "annotations": {"org.opencontainers.image.ref.name": name}}
    return _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]})


def _measured(chunks: Iterator[bytes]) -> _Blob:
    running, size_bytes = hashlib.sha256(), 0
    for chunk in chunks:
        running.update(chunk)
        size_bytes += len(chunk)
    return _Blob(f"sha256:{running.hexdigest()}", size_bytes, LAYER)


def _blob(data: bytes, media_type: str) -> _Blob:
    return _Blob(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), media_type)


def _member(blob: _Blob, data: Iterator[bytes]) -> Iterator[bytes]:
    info = tarfile.TarInfo(blob.path)
    info.size = blob.size_bytes
    yield from write_member(info, data)


def _file(name: str, data: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    yield from write_member(info, iter((data,)))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
