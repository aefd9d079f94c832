"""Somebody's own tar as a workspace archive: what `podctl import` is made of. Streams into a scratch folder.

The tar is a stranger's: it is read here only to be cleaned, and unpacked confined. Files become the pod
user's own; what a workspace has no use for (devices, attributes of the system) is left out, and told.
"""

import bz2
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from node_agent.archive.commit import ArchiveRequest, ArchiveResult, write_archive
from node_agent.archive.confinement import TREE, confined_argv
from node_agent.archive.errors import ArchiveError
from node_agent.archive.export import Lost
from node_agent.archive.fingerprint import printable
from node_agent.archive.member_tar import END, Gathered, content, members, open_tar, raw, write_member
from node_agent.archive.tar_process import TarProcess, extract_argv
from node_agent.archive.unzip import unzipped
from node_agent.store import Store

POD_UID = 1000
BYTES_MAX = 100 << 30
ENTRIES_MAX = 2_000_000
_XZ_MEMORY_BYTES_MAX = 128 << 20
_PIECE_BYTES = 1 << 14
_KEPT_ATTRIBUTES = ("SCHILY.xattr.user.", "mtime")
_GZIP, _ZSTD, _XZ, _BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"


class ImportRefused(ArchiveError):
    """What was given cannot become a workspace; the message says why."""

    code = "import_refused"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def import_tree(
    store: Store, request: ArchiveRequest, chunks: Iterator[bytes], scratch: Path
) -> ArchiveResult:
    """Make an archive of a tar, plain or compressed. `scratch` is an empty folder, which the caller removes.

    Raises ImportRefused, and what `write_archive` raises; then nothing is committed.
    """
    lost = Lost()
    try:
        unpack(_cleaned(decompressed(chunks), lost), scratch)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise ImportRefused(f"What was sent is not a tar that can be read: {error}.") from error
    return write_archive(store, replace(request, notices=tuple(lost.sentences())), scratch)


def decompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes as they are, or unpacked where they begin as gzip, zstd, xz or bzip2 does."""
    first = next(chunks, b"")
    while 0 < len(first) < len(_XZ) and (more := next(chunks, b"")):
        first += more
    whole = _again(first, chunks)
    if first.startswith(_ZSTD):
        yield from unzipped(whole, "what was sent")
    elif first.startswith(_GZIP):
        yield from _through(lambda: zlib.decompressobj(31), whole)
    elif first.startswith(_XZ):
        yield from _through(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES_MAX), whole)
    elif first.startswith(_BZIP2):
        yield from _through(bz2.BZ2Decompressor, whole)
    else:
        yield from whole


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _through(begin: Callable[[], _Decompressor], chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpacked; what compresses in parallel writes several streams, one after the other."""
    stream = begin()
    for chunk in chunks:
        # In small pieces: one chunk of zeros may unpack to a thousand times its size.
        for start in range(0, len(chunk), _PIECE_BYTES):
            piece = chunk[start : start + _PIECE_BYTES]
            # Zeros between and after streams are padding.
            while piece and not (stream.eof and not piece.strip(b"\0")):
                stream = begin() if stream.eof else stream
                yield stream.decompress(piece)
                piece = stream.unused_data if stream.eof else b""


def _cleaned(chunks: Iterator[bytes], lost: Lost) -> Iterator[bytes]:
    """A tar of what a workspace may hold. Raises ImportRefused."""
    total_bytes = 0
    with open_tar(chunk for chunk in chunks if chunk) as tar:
        for count, info in enumerate(members(tar)):
            total_bytes += info.size
            if count >= ENTRIES_MAX or total_bytes > BYTES_MAX:
                raise ImportRefused(f"It has more than {ENTRIES_MAX} entries or {BYTES_MAX >> 30} GiB.")
            if _clean(info, lost):
                yield from write_member(info, content(tar, info))
    yield END


def _clean(info: tarfile.TarInfo, lost: Lost) -> bool:
    """Make a member the pod user's own; False for what is left out."""
    if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
        lost.add("devices, FIFOs and sockets, left out", info.name)
        return False
    info.name = _inside(info.name)
    if info.islnk():
        info.linkname = _inside(info.linkname)
    dropped = [key for key in info.pax_headers if "xattr" in key and not key.startswith(_KEPT_ATTRIBUTES)]
    if dropped:
        lost.add("attributes of the system, left out", info.name)
    headers = info.pax_headers.items()
    info.pax_headers = {key: value for key, value in headers if key.startswith(_KEPT_ATTRIBUTES)}
    info.uid = info.gid = POD_UID
    info.mode = info.mode & 0o777 | (0o700 if info.isdir() else 0o600)
    return True


def _inside(name: str) -> str:
    path = PurePosixPath(name.lstrip("/"))
    if ".." in path.parts:
        raise ImportRefused(f"{printable(raw(name))[:80]!r} leads out of the workspace.")
    return "." if path == PurePosixPath() else f"./{path}"


def unpack(tar_bytes: Iterator[bytes], scratch: Path) -> None:
    """Into an empty folder, confined. Raises ImportRefused."""
    with TarProcess(confined_argv(scratch.absolute(), extract_argv(TREE)), extracts=True) as tar:
        gathered = Gathered(tar.feed)
        for piece in tar_bytes:
            if not gathered.write(piece):
                break
        gathered.flush()
        code, messages = tar.finish()
    if code != 0 or messages:
        raise ImportRefused(f"It could not be unpacked (exit {code}), tar said: {'; '.join(messages)}.")
