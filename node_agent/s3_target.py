"""Where the parts of a blob go: an upload, new or found again, or an object that is there already."""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from node_agent.s3_bucket import Bucket, SentPart
from node_agent.s3_client import NotOffered, UploadGone
from node_agent.s3_fetch import fetch
from node_agent.s3_lanes import InOrder, Lanes, persistently
from node_agent.store import (
    StoreConflict,
    StoreNotFound,
    StoreTooLarge,
    StoreUnavailable,
    check_same,
    other_content,
)
from node_agent.uploads import Claim

# The least that S3 takes, for memory's sake (docs/bench.md). It takes 10,000 parts, so a blob may have 50 GB.
PART_BYTES = 5 << 20
PARTS_IN_FLIGHT_MAX = 3
PARTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """One blob's place: its object name, and what its writer shares with others. `prefix` is the store's.

    `looks_first`: before a put, for the server may not know the condition.
    """

    bucket: Bucket
    lanes: Lanes
    prefix: str
    name: str
    claim: Claim
    looks_first: bool
    given_up: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> "Upload":
        """A new upload, remembered before its first part is sent."""
        upload_id = self.bucket.begin(self.name)
        self.claim.remember(upload_id)
        return Upload(self, self.name, upload_id, {})

    def put_whole(self, data: bytes) -> None:
        """A small blob, in one request. Raises StoreConflict over other bytes."""
        if not self.bucket.put_where_nothing_is(self.name, data, look_first=self.looks_first):
            self.check_same(self.name, len(data), hashlib.sha256(data).hexdigest())

    def check_same(self, name: str, size_bytes: int, sha256: str) -> None:
        """Raises StoreConflict unless the object has this size and digest; reads all of it."""
        if self.bucket.size(name) != size_bytes:
            raise other_content(name)
        check_same(name, fetch(self.bucket, self.lanes, name), size_bytes, sha256)

    def leave(self, clear: Callable[[], None] | None = None) -> None:
        """The writer is closed. What is left to clear is done beside it: a part on its way may take long."""
        self.given_up.set()
        if clear is None:
            self.claim.release()
        else:
            self.lanes.threads.submit(self._clear, clear)

    def _clear(self, clear: Callable[[], None]) -> None:
        try:
            clear()
        finally:
            self.claim.release()


class Upload:
    """An upload in parts. `there` are the parts that an earlier run has sent."""

    def __init__(self, place: Place, name: str, upload_id: str, there: Mapping[int, SentPart]) -> None:
        self._place = place
        self._name = name
        self._upload_id = upload_id
        self._there = there
        self._under_way: InOrder[SentPart] = InOrder(place.lanes, PARTS_IN_FLIGHT_MAX)
        self._begun = 0
        self._done: list[SentPart] = []

    def add(self, part: bytes) -> None:
        """Send the next part, if it is not there; waits while as many are on their way as may be."""
        self._begun += 1
        if self._begun > PARTS_MAX:
            raise StoreTooLarge(f"{self._name} is larger than {PARTS_MAX} parts of {PART_BYTES} bytes")
        work = partial(self._put, self._begun, part)
        while not self._under_way.try_begin(work):
            self._wait()

    def _put(self, number: int, part: bytes) -> SentPart:
        there = self._there.get(number)
        if there is not None and is_there(there, part):
            return there
        send = partial(self._place.bucket.put_part, self._name, self._upload_id, number, part)
        return persistently(send, self._place.given_up)

    def _wait(self) -> None:
        try:
            self._done.append(self._under_way.next())
        except (NotOffered, UploadGone) as error:
            # rclone takes no other bytes for a part it has, and drops the upload when its disk is full; other
            # stores drop what is unfinished for long. Only a new upload helps, with a new stream.
            self.drop()
            raise StoreUnavailable(
                f"the half upload of {self._name} cannot be gone on with, and is begun anew: {error}"
            ) from error

    def finish(self, size_bytes: int, sha256: str) -> None:
        """Make it one object, under the writer's name."""
        while self._under_way:
            self._wait()
        try:
            self._complete()
        except (StoreConflict, StoreNotFound):
            # Something is there: we ourselves, if an answer was lost; or somebody else, and that stands.
            self.drop()
            if self._place.bucket.size(self._name) is None:
                raise StoreUnavailable(f"the upload of {self._name} was ended by somebody else") from None
            self._place.check_same(self._name, size_bytes, sha256)
        _take_over(self._place, self._name)
        self._place.claim.forget()

    def _complete(self) -> None:
        # Also looks first, for servers that ignore the condition and overwrite.
        if self._place.bucket.size(self._name) is not None:
            raise other_content(self._name)
        self._place.bucket.complete(self._name, self._upload_id, self._done)

    def pause(self) -> None:
        """Leave what has arrived to a later writer."""
        self._under_way.cancel()

    def drop(self) -> None:
        """Have the store forget the parts."""
        self._under_way.cancel()
        self._place.bucket.abort(self._name, self._upload_id)
        self._place.claim.forget()


class Present:
    """An object that is there already: nothing is sent, and in the end it must be the same.

    Raises StoreNotFound if it is not there, StoreConflict if it does not begin with `first`.
    """

    def __init__(self, place: Place, name: str, first: bytes) -> None:
        self._place = place
        self._name = name
        if place.bucket.get_range(name, 0, len(first)).data != first:
            raise other_content(name)

    def add(self, part: bytes) -> None:
        """Sent before."""

    def finish(self, size_bytes: int, sha256: str) -> None:
        """Read it back, and have it under the writer's name."""
        self._place.check_same(self._name, size_bytes, sha256)
        _take_over(self._place, self._name)
        self._place.claim.forget()

    def pause(self) -> None:
        """Nothing is under way."""

    def drop(self) -> None:
        """It is not ours to remove."""


def is_there(sent: SentPart | None, part: bytes) -> bool:
    """Whether the store has this part as it is."""
    return (
        sent is not None
        and sent.size_bytes == len(part)
        and sent.tag.strip('"') == hashlib.md5(part, usedforsecurity=False).hexdigest()
    )


def _take_over(place: Place, name: str) -> None:
    """An earlier attempt's upload becomes this attempt's object: no two attempts share a key (LAW 5)."""
    if name != place.name:
        place.bucket.copy(name, place.name)
        place.bucket.delete(name)
