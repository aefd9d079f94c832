"""The record of a scan: one line for each entry of a tree, in the order of the scan, in a file.

A line says which layer of the archive holds the entry, about how many bytes of tar it takes, the inode number
if it has several names, and its identity: fields that change whenever anything of the entry does (decision
0008). Two lines with the same identity and path mean the same content, as long as both were trusted.
"""

import stat
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from os import stat_result
from pathlib import Path
from typing import IO, NamedTuple

import zstandard

from node_agent.archive.fingerprint import Recorder

# Of a member's headers: ustar and pax, with a time in nanoseconds.
HEAD_BYTES = 1536
# Two changes within one tick of the kernel's clock have one ctime (ticks are up to 10 ms long): an entry that
# changed right before it was looked at may change again unseen.
RACY_NS = 12_000_000
# CLOCK_REALTIME_COARSE of Linux, which files get their times from: it moves on by ticks (clock_gettime(2)).
_CLOCK_OF_FILES = 5
# Ticks come late on a busy machine.
TICK_NS_MAX = 100_000_000
_LOOK_EVERY_S = 0.0005

_LEVEL = 1
_BATCH_BYTES = 1 << 18
_IDENTITY_FIELDS = 8
# In the place of the mode: equal to no identity that a scan gives.
_UNTRUSTED = b"?"


def await_tick() -> int:
    """Wait until what is written from now on gets a later time than what was written before; that time (ns).

    Where the clock is set back, or stands still for long, the wait ends: then what was written last has no
    earlier time than that, and is not to be trusted.
    """
    # Not of the clock that files get their times from: Linux 6.13 gives some a finer time.
    began_ns, ends_ns = time.time_ns(), time.monotonic_ns() + TICK_NS_MAX
    while (now_ns := time.clock_gettime_ns(_CLOCK_OF_FILES)) <= began_ns and time.monotonic_ns() < ends_ns:
        time.sleep(_LOOK_EVERY_S)
    return now_ns


class Record(NamedTuple):
    """One line. `link` is 0 for entries of one name; `told` is identity and path in one."""

    layer: int
    weight: int
    link: int
    told: bytes

    @property
    def path(self) -> bytes:
        """Relative to the root, which is `.`."""
        return self.told.split(b" ", _IDENTITY_FIELDS)[_IDENTITY_FIELDS]

    def line(self) -> bytes:
        """As it is in the file."""
        return b"%d %d %d %s\0" % self


def line_of(layer: int, path: bytes, seen: stat_result, identity: bytes, trusted_before_ns: int) -> bytes:
    """The record of a scanned entry, as it is in the file."""
    kind, weight, link = stat.S_IFMT(seen.st_mode), HEAD_BYTES, 0
    if kind == stat.S_IFREG:
        weight += -(-min(seen.st_size, seen.st_blocks * 512) // 512) * 512
    if seen.st_nlink > 1 and kind in (stat.S_IFREG, stat.S_IFLNK):
        link = seen.st_ino
    if seen.st_ctime_ns >= trusted_before_ns:
        identity = b" " + _UNTRUSTED + identity[identity.index(b" ", 1) :]
    return b"%d %d %d%s %s\0" % (layer, weight, link, identity[:-1], path)


def recorder(write: "Writer", trusted_before_ns: int) -> Recorder:
    """For `scan_tree`: entries of layer 0."""

    def record(path: bytes, seen: stat_result, identity: bytes) -> None:
        write.append_line(line_of(0, path, seen, identity, trusted_before_ns))

    return record


class Writer:
    """Appends lines to a file. A disk that takes no more is told at the end, by `writing`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._batch = bytearray()
        self.error: OSError | None = None

    def append(self, record: Record) -> None:
        """Add a record."""
        self.append_line(record.line())

    def append_line(self, line: bytes) -> None:
        """Add a line as it is."""
        self._batch += line
        if len(self._batch) >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over what has been collected."""
        try:
            if self.error is None:
                self._file.write(bytes(self._batch))
        except OSError as error:
            self.error = error
        self._batch.clear()


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A new file of records. Raises OSError on leaving, never in between."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    with path.open("xb") as raw, compressor.stream_writer(raw, closefd=False) as file:
        writer = Writer(file)
        yield writer
        writer.flush()
        if writer.error:
            raise writer.error


def read_records(path: Path) -> Generator[Record, None, None]:
    """All records. Raises OSError, and ValueError for a file that `writing` has not finished."""
    for line in _lines(path):
        layer, weight, link, told = line.split(b" ", 3)
        yield Record(int(layer), int(weight), int(link), told)


def _lines(path: Path) -> Iterator[bytes]:
    rest = b""
    try:
        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as reader:
            while data := reader.read(_BATCH_BYTES):
                *lines, rest = (rest + data).split(b"\0")
                yield from lines
    except zstandard.ZstdError as error:
        raise ValueError(f"{path} cannot be decompressed: {error}") from error
    if rest:
        raise ValueError(f"{path} ends in the middle of a record")


def order(path: bytes) -> tuple[list[bytes], bytes]:
    """Sorts paths as a scan gives them: folder by folder, depth first, siblings by name."""
    if path == b".":
        return [], b""
    *folders, name = path.split(b"/")
    return folders, name


def member_name(path: bytes) -> bytes:
    """The path as tar and the index have it."""
    return path if path == b"." else b"./" + path
