"""An archive as something that other programs open: one tar, or a zip. Streams, of bounded memory.

What a form cannot carry is counted, and named in a text file that comes last.
"""

import re
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from node_agent.archive.errors import ArchiveError
from node_agent.archive.fingerprint import printable
from node_agent.archive.layer_stream import tree_tar
from node_agent.archive.manifest import Manifest
from node_agent.archive.member_tar import END, content, members, open_tar, raw, write_member
from node_agent.store import Store

# A zip's directory is kept in memory until it is written, about 1 kB for each entry.
ZIP_ENTRIES_MAX = 60_000
NAMES_TOLD_MAX = 20
NOTES_NAME = "codepods-notes.txt"
OPAQUE = "SCHILY.xattr.trusted.overlay.opaque"
_ZIP_YEAR_MIN, _ZIP_YEAR_MAX = 1980, 2107
_NOT_IN_ZIPS = re.compile(r"[\ud800-\udfff]")


class ExportRefused(ArchiveError):
    """The archive cannot be given in this form; the message says which form can."""

    code = "export_refused"


@dataclass(frozen=True, slots=True)
class Part:
    """One archive in an export, below a folder of its own (empty: at the top)."""

    manifest: Manifest
    folder: str = ""


@dataclass(slots=True)
class Lost:
    """What the form could not carry, by kind, with the first few names."""

    names: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        """One more of a kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        known = self.names.setdefault(kind, [])
        if len(known) < NAMES_TOLD_MAX:
            known.append(printable(raw(name)))

    def sentences(self) -> list[str]:
        """One for each kind."""
        return [f"{kind}: {self.counts[kind]}, such as {', '.join(self.names[kind])}" for kind in self.names]


def as_tar(store: Store, parts: Sequence[Part]) -> Iterator[bytes]:
    """All that the archives hold, exactly (several archives: holes in files written out)."""
    if len(parts) == 1 and not parts[0].folder:
        yield from tree_tar(store, parts[0].manifest)
        return
    for part in parts:
        with open_tar(tree_tar(store, part.manifest)) as tar:
            for info in members(tar):
                _move(info, part.folder)
                yield from write_member(info, content(tar, info))
    yield END


def as_zip(store: Store, parts: Sequence[Part]) -> Iterator[bytes]:
    """Files, folders and symbolic links, with their modes. Raises ExportRefused for too many entries."""
    entries = sum(part.manifest.entries for part in parts)
    if entries > ZIP_ENTRIES_MAX:
        raise ExportRefused(
            f"The archive has {entries} entries; a zip is given of at most {ZIP_ENTRIES_MAX}. Take the tar."
        )
    sink, lost = _Sink(), Lost()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as zipped:  # type: ignore[call-overload]
        for part in parts:
            with open_tar(tree_tar(store, part.manifest)) as tar:
                for info in members(tar):
                    _move(info, part.folder)
                    for _ in _zip_member(zipped, tar, info, lost):
                        yield from sink.taken()
        zipped.writestr(NOTES_NAME, _notes(parts, lost, _ZIP_LOSES))
    yield from sink.taken()


_ZIP_LOSES = (
    "A zip carries no owners, extended attributes, ACLs and holes in files, and times only of 1980 to 2107, "
    "in steps of 2 seconds."
)


class _Sink:
    """Where zipfile writes to; it can neither seek nor be read."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Keep until taken."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing to do."""

    def taken(self) -> Iterator[bytes]:
        """What was written since the last time."""
        data, self._parts = b"".join(self._parts), []
        if data:
            yield data


def _zip_member(
    zipped: zipfile.ZipFile, tar: tarfile.TarFile, info: tarfile.TarInfo, lost: Lost
) -> Iterator[None]:
    entry = _zip_entry(info, lost)
    if info.isdir():
        zipped.writestr(entry, b"")
    elif info.issym():
        zipped.writestr(entry, raw(info.linkname))
    elif info.islnk():
        lost.add("files with several names, whose further names are symbolic links", info.name)
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(entry, raw(_way_to(info.name, info.linkname)))
    elif info.isreg():
        with zipped.open(entry, "w", force_zip64=True) as file:
            for chunk in content(tar, info):
                file.write(chunk)
                yield
    else:
        lost.add("marks of what was deleted from the image, devices and FIFOs, left out", info.name)
    if OPAQUE in info.pax_headers:
        lost.add("folders that replace one of the image, which a zip cannot say", info.name)
    yield


def _zip_entry(info: tarfile.TarInfo, lost: Lost) -> zipfile.ZipInfo:
    name = info.name.removeprefix("./")
    if _NOT_IN_ZIPS.search(name):
        lost.add("names that are not UTF-8, written with escapes", info.name)
        name = printable(raw(name))
    entry = zipfile.ZipInfo(f"{name}/" if info.isdir() else name, _zip_time(info.mtime))
    entry.create_system = 3  # Unix: the modes below are of its kind
    entry.compress_type = zipfile.ZIP_DEFLATED
    kinds = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK}
    entry.external_attr = (kinds.get(info.type, stat.S_IFREG) | info.mode & 0o7777) << 16
    return entry


def _zip_time(mtime_s: float) -> tuple[int, int, int, int, int, int]:
    moment = time.gmtime(min(max(mtime_s, 0), 2**36))
    if not _ZIP_YEAR_MIN <= moment.tm_year <= _ZIP_YEAR_MAX:
        return (_ZIP_YEAR_MIN if moment.tm_year < _ZIP_YEAR_MIN else _ZIP_YEAR_MAX, 1, 1, 0, 0, 0)
    return (moment.tm_year, *moment[1:6])


def _way_to(link: str, target: str) -> str:
    """A relative path from one name's folder to another name."""
    up = link.removeprefix("./").count("/")
    return "../" * up + target.removeprefix("./")


def _move(info: tarfile.TarInfo, folder: str) -> None:
    """Below a folder."""
    if not folder:
        return
    info.name = _below(folder, info.name)
    if info.islnk():
        info.linkname = _below(folder, info.linkname)


def _below(folder: str, name: str) -> str:
    inside = name.removeprefix("./").removeprefix(".")
    return f"./{folder}/{inside}".rstrip("/")


def _notes(parts: Sequence[Part], lost: Lost, always: str) -> str:
    """For people: of what time it is, and what is not in it."""
    lines = [
        f"{part.manifest.kind} {part.manifest.target_id}, archive {part.manifest.number} of "
        f"{part.manifest.created_at.isoformat()}"
        for part in parts
    ]
    notices = [notice for part in parts for notice in part.manifest.notices]
    return "\n".join([*lines, "", always, *lost.sentences(), *notices]) + "\n"
