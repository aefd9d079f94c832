"""Reading an object in ranges, several at a time, delivered in order; bounded memory."""

import threading
from collections.abc import Generator
from functools import partial

from node_agent.s3_bucket import Bucket, FetchedRange
from node_agent.s3_client import NotOffered
from node_agent.s3_lanes import InOrder, Lanes, persistently
from node_agent.store import StoreConflict, StoreUnavailable

RANGE_BYTES = 4 << 20
# Beyond the one that is wanted next.
RANGES_AHEAD_MAX = 3


def fetch(bucket: Bucket, lanes: Lanes, name: str) -> Generator[bytes, None, None]:
    """The object's bytes. The first request is made at once, and raises StoreNotFound if nothing is there."""
    given_up = threading.Event()
    try:
        first = persistently(partial(bucket.get_range, name, 0, RANGE_BYTES), given_up)
    except NotOffered:
        return bucket.get(name)[1]
    return _rest(bucket, lanes, name, first, given_up)


def _rest(
    bucket: Bucket, lanes: Lanes, name: str, first: FetchedRange, given_up: threading.Event
) -> Generator[bytes, None, None]:
    under_way: InOrder[bytes] = InOrder(lanes, RANGES_AHEAD_MAX)
    begun_bytes = len(first.data)
    if first.data:
        yield first.data
    total_bytes, tag = first.total_bytes, first.tag
    del first
    try:
        while begun_bytes < total_bytes or under_way:
            while begun_bytes < total_bytes:
                work = partial(_range, bucket, name, begun_bytes, tag)
                if not under_way.try_begin(partial(persistently, work, given_up)):
                    break
                begun_bytes += RANGE_BYTES
            yield under_way.next()
    finally:
        given_up.set()
        under_way.cancel()


def _range(bucket: Bucket, name: str, first: int, tag: str) -> bytes:
    try:
        return bucket.get_range(name, first, RANGE_BYTES, tag).data
    except StoreConflict as error:
        raise StoreUnavailable(f"{name} was replaced while it was read; it is read again") from error
