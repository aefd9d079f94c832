"""Single members of a tar as bytes, so that a tar can be made of other tars' members, whatever their names.

Python's tarfile reads all that we meet, but writes names that are not UTF-8 in a way that GNU tar warns of,
and rounds times. Here each member has a pax header with its names as they are and its records as they came.
"""

import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Self, cast

from node_agent.store import CHUNK_BYTES

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)
_OCTAL_7_MAX = 0o7777777
_OCTAL_11_MAX = 0o77777777777
_USTAR_NAME_BYTES_MAX = 100
# Of the member as it is read: holes are read as zeros, sizes and names may have been changed since.
_REWRITTEN = ("path", "linkpath", "size", "uid", "gid", "hdrcharset", "uname", "gname")


class ChunkFile:
    """Chunks as a file that tarfile and others can read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        parts, missing = [], size if size >= 0 else 1 << 62
        while missing > 0:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
            part, self._rest = self._rest[:missing], self._rest[missing:]
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)


class EndMark:
    """Looks at a tar's chunks as they pass: whole ones end with two empty blocks."""

    def __init__(self) -> None:
        self._tail = b""

    @property
    def seen(self) -> bool:
        """Whether the chunks that have passed end so."""
        return self._tail == END

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks."""
        for chunk in chunks:
            last = chunk[-len(END) :]
            self._tail = (self._tail + last)[-len(END) :]
            yield chunk


class OfWholeTar(tarfile.TarInfo):
    """A member; by itself tarfile takes a header that is cut, damaged or not there for the tar's end."""

    __slots__ = ()

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it breaks off or is damaged at byte {tar.offset}") from error


def open_tar(chunks: Iterator[bytes]) -> tarfile.TarFile:
    """A tar to be read once, from beginning to end. Raises tarfile.TarError, also while it is read."""
    source = cast("IO[bytes]", ChunkFile(chunks))
    return tarfile.open(
        fileobj=source,
        mode="r|",
        encoding="utf-8",
        errors="surrogateescape",
        bufsize=CHUNK_BYTES,
        tarinfo=OfWholeTar,
    )


def raw(text: str) -> bytes:
    """A name or record of `open_tar` as it was in the tar."""
    return text.encode("utf-8", "surrogateescape")


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """One after another, remembering none. Raises tarfile.TarError."""
    while (info := tar.next()) is not None:
        yield info
        tar.members = []  # type: ignore[attr-defined]


def write_member(info: tarfile.TarInfo, data: Iterator[bytes]) -> Iterator[bytes]:
    """A member's headers, content and padding. `data` has to be of `info.size` bytes."""
    yield header(info)
    size_bytes = 0
    for chunk in data:
        size_bytes += len(chunk)
        yield chunk
    yield bytes(-size_bytes % BLOCK_BYTES)


def content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    """What is in a regular file, holes as zeros; nothing for all else."""
    file = tar.extractfile(info) if info.isreg() else None
    while file is not None and (chunk := file.read(CHUNK_BYTES)):
        yield chunk


def header(info: tarfile.TarInfo) -> bytes:
    """A pax header with all that does not fit, then the ustar header."""
    records = _records(info)
    if not records:
        return _ustar(info, raw(info.name), info.type)
    body = b"".join(_record(key, value) for key, value in records.items())
    extended = tarfile.TarInfo("pax")
    extended.size = len(body)
    start = _ustar(extended, b"./pax-header", tarfile.XHDTYPE)
    return start + body + bytes(-len(body) % BLOCK_BYTES) + _ustar(info, raw(info.name), info.type)


def _records(info: tarfile.TarInfo) -> dict[bytes, bytes]:
    kept = {
        raw(key): raw(value)
        for key, value in info.pax_headers.items()
        if key not in _REWRITTEN and not key.startswith("GNU.sparse.")
    }
    name, link = raw(info.name), raw(info.linkname)
    if len(name) > _USTAR_NAME_BYTES_MAX or not name.isascii():
        kept[b"path"] = name
    if len(link) > _USTAR_NAME_BYTES_MAX or not link.isascii():
        kept[b"linkpath"] = link
    for key, number, most in (
        (b"uid", info.uid, _OCTAL_7_MAX),
        (b"gid", info.gid, _OCTAL_7_MAX),
        (b"size", info.size, _OCTAL_11_MAX),
    ):
        if number > most:
            kept[key] = b"%d" % number
    if b"mtime" not in kept and not 0 <= int(info.mtime) <= _OCTAL_11_MAX:
        kept[b"mtime"] = b"%d" % int(info.mtime)
    return kept


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE` and a newline, the length counting itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _ustar(info: tarfile.TarInfo, name: bytes, kind: bytes) -> bytes:
    is_device = kind in (tarfile.CHRTYPE, tarfile.BLKTYPE)
    block = b"".join(
        (
            name[:_USTAR_NAME_BYTES_MAX].ljust(100, b"\0"),
            _octal(info.mode & 0o7777, 8),
            _octal(info.uid, 8),
            _octal(info.gid, 8),
            _octal(info.size if info.isreg() or kind == tarfile.XHDTYPE else 0, 12),
            _octal(max(0, int(info.mtime)), 12),
            b" " * 8,
            tarfile.REGTYPE if kind in (tarfile.AREGTYPE, tarfile.GNUTYPE_SPARSE) else kind,
            raw(info.linkname)[:_USTAR_NAME_BYTES_MAX].ljust(100, b"\0"),
            b"ustar\x0000".ljust(72, b"\0"),
            _octal(info.devmajor if is_device else 0, 8),
            _octal(info.devminor if is_device else 0, 8),
        )
    ).ljust(BLOCK_BYTES, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, width: int) -> bytes:
    """What does not fit is in a pax record; here it is cut."""
    most = 8 ** (width - 1) - 1
    return b"%0*o\0" % (width - 1, min(max(number, 0), most))


class Gathered:
    """Hands small pieces on in large ones."""

    def __init__(self, take: Callable[[bytes], bool]) -> None:
        self._take = take
        self._parts: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> bool:
        """False when nothing more is taken."""
        self._parts.append(data)
        self._bytes += len(data)
        return True if self._bytes < CHUNK_BYTES else self.flush()

    def flush(self) -> bool:
        """Hand on what is left."""
        joined, self._parts, self._bytes = b"".join(self._parts), [], 0
        return self._take(joined) if joined else True
