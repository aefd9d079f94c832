"""Writing an object in parts: several on their way at a time, and after a crash only those that are missing.

What has arrived is asked of the store, part by part: a part is sent unless one of the same number, size and
MD5 is there. For that the stream must come out the same again, which `capture` sees to; where it does not,
the parts that differ are sent again. Nothing is visible before the last request, and what is visible is never
replaced: an object that is there already must be the same, byte for byte.
"""

import hashlib
from types import TracebackType

from node_agent.s3_target import PART_BYTES, Place, Present, Upload, is_there
from node_agent.store import BlobWriter, StoredBlob, StoreError, StoreNotFound, StoreUnavailable


class S3Writer(BlobWriter):
    """One blob. Up to 5 MiB are one put; the upload is begun, or found again, with the first full part."""

    def __init__(self, place: Place, key: str) -> None:
        self._place = place
        self._key = key
        # The part that is being filled.
        self._part = bytearray()
        self._running = hashlib.sha256()
        self._size_bytes = 0
        self._target: Upload | Present | None = None
        self._open = True

    def write(self, data: bytes) -> None:
        self._check_open()
        self._running.update(data)
        self._size_bytes += len(data)
        left = memoryview(data)
        while len(left) > (room := PART_BYTES - len(self._part)):  # it is full, and not the last
            self._part += left[:room]
            left = left[room:]
            self._send(self._take_part())
        self._part += left

    def commit(self) -> StoredBlob:
        self._check_open()
        digest = self._running.hexdigest()
        if self._target is None:
            self._place.put_whole(self._take_part())
        else:
            self._send(self._take_part())
            self._target.finish(self._size_bytes, digest)
        self._close()
        self._place.leave()
        return StoredBlob(self._key, self._size_bytes, digest)

    def abort(self) -> None:
        if self._open:
            self._close()
            self._place.leave(self._target.drop if self._target else None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open and isinstance(error, StoreUnavailable) and self._place.claim.kept:
            # What has arrived stays, for the retry.
            self._close()
            self._place.leave(self._target.pause if self._target else None)
        else:
            self.abort()

    def _close(self) -> None:
        self._open = False
        self._part = bytearray()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"the writer of {self._key} is closed")

    def _take_part(self) -> bytes:
        part = bytes(self._part)
        self._part = bytearray()
        return part

    def _send(self, part: bytes) -> None:
        if self._target is None:
            self._target = self._find_target(part)
        self._target.add(part)

    # ---- where the parts go --------------------------------------------------------------------------------

    def _find_target(self, first: bytes) -> Upload | Present:
        """What an earlier run has left, if it is of this blob; else a new upload."""
        place = self._place
        if place.bucket.size(place.name) is not None:
            return Present(place, place.name, first)
        return self._left_behind(first) or place.begin()

    def _left_behind(self, first: bytes) -> Upload | Present | None:
        place, begun = self._place, self._place.claim.begun
        if begun is None:
            return None
        name = place.prefix + begun.key
        try:
            there = {part.number: part for part, _ in place.bucket.parts(name, begun.token)}
        except StoreNotFound:
            return self._finished_by_then(name, first)
        if name == place.name or is_there(there.get(1), first):
            return Upload(place, name, begun.token, there)
        place.bucket.abort(name, begun.token)
        place.claim.forget()
        return None

    def _finished_by_then(self, name: str, first: bytes) -> Present | None:
        """An earlier attempt's upload that is over: it may have become an object just before the crash."""
        try:
            return Present(self._place, name, first)
        except StoreError:
            self._place.claim.forget()
            return None
