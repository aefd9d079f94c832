"""A layer's tar without its dead members: a filter over the stream that copies the living ones as they are.

It reads what GNU tar writes for `create_argv`: ustar headers, pax headers before them, and nothing else. What
it cannot read is ArchiveCorrupt; it never guesses.
"""

from collections.abc import Collection, Generator, Iterable, Iterator

from node_agent.archive.errors import ArchiveCorrupt

BLOCK_BYTES = 512
# tar ends with two empty blocks, and fills up a record of twenty.
RECORD_BYTES = 20 * BLOCK_BYTES
# A member's headers: a path and a link's target of 4 KiB, and attributes of 64 KiB each.
HEAD_BYTES_MAX = 16 << 20
_EMPTY_BLOCK = bytes(BLOCK_BYTES)
_PAX = ord("x")
# Files, hard links, symbolic links, devices, folders, FIFOs.
_MEMBERS = frozenset(b"0123456")
_TOLD_IN_PAX = (b" path=", b" size=", b" GNU.sparse.name=")


class LivingMembers:
    """Iterate for the tar's bytes. `kept` counts its living members; their names go to `names` if wanted.

    The tar's end mark is left out, so that several can follow one another; `end_mark` comes after the last.
    """

    def __init__(
        self, chunks: Iterable[bytes], dead: Collection[bytes], names: set[bytes] | None = None
    ) -> None:
        self._chunks = chunks
        self._dead = dead
        self._names = names
        self._ended = False
        # How much of the last member lies in coming chunks, and whether it lives.
        self._left_bytes = 0
        self._living = True
        self.kept = 0

    def __iter__(self) -> Iterator[bytes]:
        data = b""
        for chunk in self._chunks:
            data = data + chunk if data else chunk
            data = data[(yield from self._living_spans(data)) :]
            if len(data) > HEAD_BYTES_MAX:
                raise ArchiveCorrupt(f"a member of a layer has more than {HEAD_BYTES_MAX} bytes of headers")
        if data or self._left_bytes or not self._ended:
            raise ArchiveCorrupt("the tar inside a layer ends in the middle")

    def _living_spans(self, data: bytes) -> Generator[bytes, None, int]:
        """Yields the living parts; returns how far the data could be read."""
        place = min(self._left_bytes, len(data))
        self._left_bytes -= place
        start = 0 if self._living else place
        while place < len(data) and not self._ended:
            member = _read_member(data, place)
            if member is None:
                break
            path, length = member
            self._ended = length == 0
            if self._ended or not self._is_living(path):
                if place > start:
                    yield data[start:place]
                start = min(place + length, len(data))
            self._left_bytes = max(0, place + length - len(data))
            place = min(place + length, len(data))
        if self._ended:
            if data[place:].strip(b"\0"):
                raise ArchiveCorrupt("a layer goes on after the end of its tar")
            return len(data)
        if place > start:
            yield data if place - start == len(data) else data[start:place]
        return place

    def _is_living(self, path: bytes) -> bool:
        self._living = path not in self._dead
        if self._living:
            self.kept += 1
            if self._names is not None:
                self._names.add(path)
        return self._living


def end_mark(tar_bytes: int) -> bytes:
    """What follows the members of a tar that has had this many bytes so far."""
    return bytes(2 * BLOCK_BYTES + (-tar_bytes - 2 * BLOCK_BYTES) % RECORD_BYTES)


def _read_member(data: bytes, start: int) -> tuple[bytes, int] | None:
    """Name and whole length of the member that starts here; None where its headers are cut; 0 at the end."""
    place, told = start, dict[bytes, bytes]()
    while place + BLOCK_BYTES <= len(data):
        kind = data[place + 156]
        if kind == _PAX:
            size = _octal(data, place)
            body = place + BLOCK_BYTES
            place = body + _padded(size)
            if place > len(data):
                return None
            _read_pax(data[body : body + size], told)
        elif kind in _MEMBERS:
            size = int(told[b"size"]) if b"size" in told else _octal(data, place)
            return _name(data, place, told), place + BLOCK_BYTES + _padded(size) - start
        elif place == start and data[place : place + BLOCK_BYTES] == _EMPTY_BLOCK:
            return b"", 0
        else:
            raise ArchiveCorrupt(f"a layer has a member of the unknown kind {kind}")
    return None


def _read_pax(records: bytes, told: dict[bytes, bytes]) -> None:
    """Records are `<length> <key>=<value>\\n`. Most have no key that is asked for: then they are not read."""
    if not any(key in records for key in _TOLD_IN_PAX):
        return
    place = 0
    while place < len(records):
        space = records.find(b" ", place, place + 20)
        digits = records[place:space]
        length = int(digits) if space > place and digits.isdigit() else 0
        key, equals, value = records[space + 1 : place + length - 1].partition(b"=")
        if not equals or place + length > len(records):
            raise ArchiveCorrupt("a layer has a pax header that cannot be read")
        told[key] = value
        place += length


def _name(data: bytes, place: int, told: dict[bytes, bytes]) -> bytes:
    """As the index has it: with a leading `./`, without a trailing slash."""
    path = told.get(b"GNU.sparse.name") or told.get(b"path")
    if path is None:
        name = data[place : place + 100].partition(b"\0")[0]
        prefix = data[place + 345 : place + 500].partition(b"\0")[0]
        path = prefix + b"/" + name if prefix else name
    return path.rstrip(b"/")


def _octal(data: bytes, place: int) -> int:
    """The size in a header."""
    digits = data[place + 124 : place + 136].rstrip(b"\0 ")
    try:
        return int(digits, 8)
    except ValueError as error:
        raise ArchiveCorrupt(f"a layer has a member of the unreadable size {digits!r}") from error


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
