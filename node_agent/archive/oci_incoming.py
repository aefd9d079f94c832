"""An OCI image, or what `docker save` writes, as archives of a pod and of its user's files.

The reverse of `oci.as_oci`. The image has to lie on an image that the store keeps, with one layer more: that
layer is the pod's changes, and what it has below /workspaces the user's files. All of it is a stranger's
data: known by digests alone, spooled into a scratch folder, and unpacked confined.
"""

import hashlib
import json
import lzma
import re
import secrets
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from node_agent.archive.errors import ArchiveCorrupt, ArchiveError
from node_agent.archive.export import OPAQUE, Lost
from node_agent.archive.image_store import (
    IMAGES_PREFIX,
    LAYERS_PREFIX,
    ImageManifest,
    missing_layers,
    read_image,
    renew,
)
from node_agent.archive.incoming import BYTES_MAX, ENTRIES_MAX, POD_UID, ImportRefused, decompressed
from node_agent.archive.member_tar import END, content, members, open_tar, write_member
from node_agent.archive.oci import MADE_BY, WORKSPACES
from node_agent.store import CHUNK_BYTES, Store

# What may be an image's configuration, a manifest or an index is kept in memory.
JSON_BYTES_MAX = 4 << 20
JSON_FILES_MAX = 500
JSON_TOTAL_BYTES_MAX = 16 << 20
IMAGES_MAX = 2_000
DIFF_IDS_MAX = 200
_MARK, _OPAQUE_MARK = ".wh.", ".wh..wh..opq"
_ESCAPED = re.compile(r"_+\.wh\.")
_UNREADABLE = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ArchiveCorrupt)


@dataclass(frozen=True, slots=True)
class Opened:
    """What is in the image: the layer's tar in a file, and the kept image that it lies on."""

    base: ImageManifest
    layer: Path
    escaped: bool
    notices: tuple[str, ...]


@dataclass(slots=True)
class _Found:
    """What a look through the tar has shown. `blobs` by the digest of what they unpack to."""

    texts: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, Path] = field(default_factory=dict)
    total_bytes: int = 0


@dataclass(slots=True)
class Layer:
    """What a look through the layer has shown."""

    opaque: set[str] = field(default_factory=set)
    present: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    has_files: bool = False


def open_image(store: Store, chunks: Iterator[bytes], spool: Path, known: Collection[str] = ()) -> Opened:
    """Read an image into `spool`, a folder that the caller removes. Layers of `known` digests are not kept.

    Raises ImportRefused, StoreError.
    """
    try:
        found = _read(chunks, spool, frozenset(known))
    except _UNREADABLE as error:
        raise ImportRefused(f"What was sent is not an image that can be read: {error}.") from error
    config = _config(found.texts)
    diff_ids = _diff_ids(config)
    base = _base(store, diff_ids)
    layer = found.blobs.get(diff_ids[-1])
    if layer is None:
        raise ImportRefused(f"Its uppermost layer, {diff_ids[-1]}, was not sent with it, or is damaged.")
    renew(store, base)
    if missing := missing_layers(store, base):
        raise ImportRefused(f"The image that it lies on is not whole in the store: {missing[0]} is missing.")
    return Opened(base, layer, _is_ours(config), tuple(_notices(config, base)))


# ---- what was sent -----------------------------------------------------------------------------------------


def _read(chunks: Iterator[bytes], spool: Path, known: Collection[str]) -> _Found:
    found = _Found()
    with open_tar(chunk for chunk in decompressed(chunks) if chunk) as tar:
        for count, info in enumerate(members(tar)):
            found.total_bytes += info.size
            if count >= ENTRIES_MAX or found.total_bytes > BYTES_MAX:
                raise ImportRefused(f"It has more than {ENTRIES_MAX} entries or {BYTES_MAX >> 30} GiB.")
            if info.isreg():
                _take(found, info, content(tar, info), spool, known)
    return found


def _take(
    found: _Found, info: tarfile.TarInfo, data: Iterator[bytes], spool: Path, known: Collection[str]
) -> None:
    """Keep a file under its own digest; small ones, which may be texts, by their name too."""
    path = spool / secrets.token_hex(8)
    with path.open("wb") as file:
        for chunk in data:
            file.write(chunk)
    if info.size <= JSON_BYTES_MAX and path.read_bytes()[:1] in (b"{", b"["):
        found.texts[info.name.removeprefix("./")] = path.read_bytes()
        if len(found.texts) > JSON_FILES_MAX or sum(map(len, found.texts.values())) > JSON_TOTAL_BYTES_MAX:
            raise ImportRefused(f"It has more than {JSON_FILES_MAX} texts: no image has so many.")
    digest = _unpacked_digest(path)
    if digest is None or digest in known or digest in found.blobs:
        path.unlink()
    else:
        found.blobs[digest] = path


def _unpacked_digest(path: Path) -> str | None:
    """None for what is compressed in a way that is not known, or broken: it is no layer."""
    running = hashlib.sha256()
    try:
        for chunk in _unpacked(path):
            running.update(chunk)
    except _UNREADABLE:
        return None
    return f"sha256:{running.hexdigest()}"


def _unpacked(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from decompressed(_pieces(file))


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while data := file.read(CHUNK_BYTES):
        yield data


def _config(texts: Mapping[str, bytes]) -> dict[str, Any]:
    """The configuration of the one image in it, by docker's own index, else by OCI's."""
    if "manifest.json" in texts:
        name = str(_only(_parsed(texts, "manifest.json"), "images").get("Config", ""))
        return _object(_parsed(texts, name))
    index = _object(_parsed(texts, "index.json"))
    manifest = _object(_parsed(texts, _blob_name(_only(index.get("manifests"), "images"))))
    return _object(_parsed(texts, _blob_name(_object(manifest.get("config")))))


def _only(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, list) or len(value) != 1:
        count = len(value) if isinstance(value, list) else 0
        raise ImportRefused(f"It has {count} {what}; one is taken at a time: save one alone.")
    return _object(value[0])


def _parsed(texts: Mapping[str, bytes], name: str) -> object:
    if name not in texts:
        raise ImportRefused(
            f"It is no image: {name[:100] or 'its configuration'} is not in it. Send what `docker save` or "
            "`podctl download --format oci` writes, or an OCI layout in a tar."
        )
    try:
        return json.loads(texts[name])
    except ValueError as error:
        raise ImportRefused(f"{name[:100]} in it cannot be read: {error}.") from error


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ImportRefused("One of its texts is not what images have there.")
    return value


def _blob_name(described: Mapping[str, Any]) -> str:
    return f"blobs/{str(described.get('digest', '')).replace(':', '/')}"


def _diff_ids(config: Mapping[str, Any]) -> tuple[str, ...]:
    found = _object(config.get("rootfs")).get("diff_ids")
    if not isinstance(found, list) or not 1 <= len(found) <= DIFF_IDS_MAX:
        raise ImportRefused(f"Its configuration does not name its layers, 1 to {DIFF_IDS_MAX}.")
    return tuple(map(str, found))


# ---- what it lies on ---------------------------------------------------------------------------------------


def _base(store: Store, diff_ids: tuple[str, ...]) -> ImageManifest:
    """The kept image that has all of its layers but the uppermost."""
    for key in store.list(IMAGES_PREFIX, IMAGES_MAX):
        if key.startswith(LAYERS_PREFIX) or not key.endswith("/manifest.json"):
            continue
        try:
            image = read_image(store, f"sha256:{key.removeprefix(IMAGES_PREFIX).partition('/')[0]}")
        except ArchiveError:
            continue
        if image is not None and tuple(layer.diff_id for layer in image.layers) == diff_ids[:-1]:
            return image
    raise ImportRefused(
        f"It has {len(diff_ids)} layers, and the lower {len(diff_ids) - 1} are of no image that is kept here."
        " Taken is an image of one layer on an image of pods: what `podctl download --format oci` or `docker "
        "commit` of a pod makes. Of any other, take its files: `docker export`, then `podctl import` of the "
        "folder that you need."
    )


def _is_ours(config: Mapping[str, Any]) -> bool:
    history = config.get("history")
    last = history[-1] if isinstance(history, list) and history else None
    return isinstance(last, dict) and str(last.get("created_by", "")).startswith(MADE_BY)


def _notices(config: Mapping[str, Any], base: ImageManifest) -> Iterator[str]:
    if config.get("config") != json.loads(base.config).get("config"):
        yield "the image's own settings (environment, command, user) are not taken: its base's are kept"


# ---- its uppermost layer -----------------------------------------------------------------------------------


def look_through(opened: Opened) -> Layer:
    """What has to be known before the first member is unpacked. Raises ImportRefused."""
    layer, parents, size_bytes = Layer(), set[str](), 0
    for info in _members(opened):
        name = _name(info.name, opened)
        size_bytes += info.size
        if len(layer.present) > ENTRIES_MAX or size_bytes > BYTES_MAX:
            raise ImportRefused(f"It unpacks to more than {ENTRIES_MAX} entries or {BYTES_MAX >> 30} GiB.")
        above, _, base = info.name.removeprefix("./").rstrip("/").rpartition("/")
        parent = _name(above, opened)
        if parent:
            parents.add(parent)
        if base == _OPAQUE_MARK:
            layer.opaque.add(parent)
        elif base.startswith(_MARK):
            layer.deleted.add(f"{parent}/{base.removeprefix(_MARK)}".lstrip("/"))
        else:
            layer.present.add(name)
            layer.has_files |= name.startswith(f"{WORKSPACES}/")
    # A folder that is not in the layer would come with an owner and a mode of our making.
    if lacking := sorted(parents - layer.present):
        raise ImportRefused(f"Its layer leaves out the folder {lacking[0][:200]!r}, in which it has files.")
    return layer


def pod_tree(opened: Opened, layer: Layer, lost: Lost) -> Iterator[bytes]:
    """The layer as a pod's changes, with the marks of an upper directory. A tar."""
    yield from _folder(0)
    for info, data in _contents(opened):
        name = info.name
        if _is_file_of_users(name) or not _usable(info, lost):
            continue
        # What was deleted and is there anew replaces the image's, and is not merged with it.
        if info.isdir() and (name in layer.opaque or name in layer.deleted):
            info.pax_headers = {**info.pax_headers, OPAQUE: "y"}
        yield from _written(info, data, "./")
    # Last: what they lie in has its owner and mode by then.
    for name in sorted(layer.deleted - layer.present):
        if not _is_file_of_users(name):
            yield from _whiteout(name)
    yield END


def files_tree(opened: Opened, lost: Lost) -> Iterator[bytes]:
    """What the layer has below /workspaces, as the user's files. A tar."""
    yield from _folder(POD_UID)
    for info, data in _contents(opened):
        if not _is_file_of_users(info.name) or not _usable(info, lost):
            continue
        info.name = info.name.removeprefix(WORKSPACES).lstrip("/")
        if info.islnk():
            if not info.linkname.startswith(f"{WORKSPACES}/"):
                raise ImportRefused(f"{info.name[:200]!r} is a hard link to a file outside of /{WORKSPACES}.")
            info.linkname = info.linkname.removeprefix(f"{WORKSPACES}/")
        yield from _written(info, data, "./" if info.name else ".")
    yield END


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise ImportRefused(f"Its uppermost layer cannot be read: {error}.") from error


def _members(opened: Opened) -> Iterator[tarfile.TarInfo]:
    with _reading(), open_tar(_unpacked(opened.layer)) as tar:
        yield from members(tar)


def _contents(opened: Opened) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """The members that are no marks, named as in the pod, without a slash at either end."""
    with _reading(), open_tar(_unpacked(opened.layer)) as tar:
        for info in members(tar):
            base = info.name.rstrip("/").rpartition("/")[2]
            if base.startswith(_MARK):
                continue
            info.name = _name(info.name, opened)
            if info.islnk():
                info.linkname = _name(info.linkname, opened)
            yield info, content(tar, info)


def _name(name: str, opened: Opened) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ImportRefused(f"{name[:80]!r} leads out of the pod.")
    if opened.escaped:
        parts = [part[1:] if _ESCAPED.match(part) else part for part in parts]
    return "/".join(parts)


def _is_file_of_users(name: str) -> bool:
    return name == WORKSPACES or name.startswith(f"{WORKSPACES}/")


def _usable(info: tarfile.TarInfo, lost: Lost) -> bool:
    """Take off what belongs to a node or its kernel; False for what is left out."""
    if info.ischr() and (info.devmajor, info.devminor) == (0, 0):
        lost.add("devices 0:0, which would delete a file of the image, left out", info.name)
        return False
    dropped = {key for key in info.pax_headers if key.startswith("SCHILY.xattr.trusted.")}
    if dropped:
        lost.add("attributes of the kernel, left out", info.name)
    headers = info.pax_headers.items()
    info.pax_headers = {key: value for key, value in headers if key not in dropped}
    return True


def _written(info: tarfile.TarInfo, data: Iterator[bytes], prefix: str) -> Iterator[bytes]:
    info.name = f"{prefix}{info.name}"
    if info.islnk():
        info.linkname = f"./{info.linkname}"
    yield from write_member(info, data)


def _folder(uid: int) -> Iterator[bytes]:
    """The top, where the layer says nothing of it."""
    info = tarfile.TarInfo(".")
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o755, uid, uid
    yield from write_member(info, iter(()))


def _whiteout(name: str) -> Iterator[bytes]:
    info = tarfile.TarInfo(f"./{name}")
    info.type, info.mode, info.devmajor, info.devminor = tarfile.CHRTYPE, 0, 0, 0
    yield from write_member(info, iter(()))
