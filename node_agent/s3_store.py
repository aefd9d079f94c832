"""The store port on S3 and what speaks like it.

Nothing rests on what some servers lack: object metadata, checksums of ranges, conditional puts.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from node_agent.s3_bucket import Bucket
from node_agent.s3_client import make_client
from node_agent.s3_fetch import fetch
from node_agent.s3_lanes import Lanes
from node_agent.s3_target import Place
from node_agent.s3_upload import S3Writer
from node_agent.store import (
    LIST_LIMIT_MAX,
    PROBE_PREFIX,
    BlobWriter,
    Store,
    StoreCapabilities,
    StoreConflict,
    StoredEntry,
    StoreNotFound,
    StoreTooLarge,
    check_key,
    settle_conflict,
)
from node_agent.uploads import UploadJournal

# Stores round the time of an object.
CLOCK_GRAIN = timedelta(seconds=2)


class S3Store(Store):
    """Keys below `prefix` in one bucket. Credentials come from where AWS tools look."""

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint_url: str | None = None,
        region: str | None = None,
        journal: UploadJournal | None = None,
    ) -> None:
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        where = f"bucket {bucket!r} at {endpoint_url or 'AWS'}"
        self._bucket = Bucket(make_client(endpoint_url, region), bucket, where)
        self._lanes = Lanes()
        self._journal = journal or UploadJournal()
        # Until a probe has found a server that refuses by itself to write over what is there.
        self._looks_first = True

    def open_writer(self, key: str) -> BlobWriter:
        """See Store. Up to 5 MiB are one put, more are parts of 5 MiB with three on their way."""
        name = self._name(key)
        claim = self._journal.claim(key)
        return S3Writer(Place(self._bucket, self._lanes, self._prefix, name, claim, self._looks_first), key)

    @contextmanager
    def open_reader(self, key: str) -> Iterator[Iterator[bytes]]:
        """See Store. Ranges of 4 MiB, with three fetched ahead."""
        chunks = fetch(self._bucket, self._lanes, self._name(key))
        try:
            yield chunks
        finally:
            chunks.close()

    def put_manifest(self, key: str, data: bytes, *, only_if_absent: bool = True) -> None:
        """See Store. Looks first where the server may ignore the condition and overwrite."""
        name = self._name(key)
        if not only_if_absent:
            self._bucket.put(name, data)
        elif not self._bucket.put_where_nothing_is(name, data, look_first=self._looks_first):
            settle_conflict(self, key, data)

    def get(self, key: str, size_bytes_max: int) -> bytes:
        """See Store."""
        size_bytes, chunks = self._bucket.get(self._name(key))
        try:
            if size_bytes <= size_bytes_max:
                return b"".join(chunks)
        finally:
            chunks.close()
        raise StoreTooLarge(f"{key} has more than the {size_bytes_max} bytes that are read of it")

    def head(self, key: str) -> int | None:
        """See Store."""
        return self._bucket.size(self._name(key))

    def list(self, prefix: str, limit: int = LIST_LIMIT_MAX) -> tuple[str, ...]:
        """See Store."""
        names = self._bucket.names(self._prefix + prefix, limit)
        return tuple(name.removeprefix(self._prefix) for name in names)

    def delete(self, key: str) -> None:
        """See Store."""
        self._bucket.delete(self._name(key))

    def entries(
        self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT_MAX
    ) -> tuple[StoredEntry, ...]:
        """See Store."""
        start = self._prefix + after if after else ""
        found = self._bucket.page(self._prefix + prefix, start, limit)
        return tuple(replace(entry, key=entry.key.removeprefix(self._prefix)) for entry in found)

    def delete_if_same(self, entry: StoredEntry) -> bool:
        """See Store. On condition where the store can; looked at right before where it cannot."""
        name = self._name(entry.key)
        there = self._bucket.page(name, "", 1)
        if not there or there[0].key != name:
            return True
        if there[0].version != entry.version or there[0].modified_at > entry.modified_at + CLOCK_GRAIN:
            return False
        return self._bucket.delete_version(name, entry.version)

    def clock(self) -> datetime:
        """See Store. A scratch object's time."""
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        self.put_manifest(key, b"time")
        (entry,) = self._bucket.page(self._name(key), "", 1)
        self.delete(key)
        return entry.modified_at

    def drop_unfinished(self, older_than: timedelta) -> int:
        """See Store. An upload's age counts from its newest part."""
        before = datetime.now(UTC) - older_than
        found = list(self._bucket.uploads(self._prefix))
        old = [upload for upload in found if self._newest(*upload) < before]
        for name, upload_id, _ in old:
            self._bucket.abort(name, upload_id)
        return len(old)

    def _newest(self, name: str, upload_id: str, begun_at: datetime) -> datetime:
        with suppress(StoreNotFound):
            return max((at for _, at in self._bucket.parts(name, upload_id)), default=begun_at)
        return begun_at

    def probe(self) -> StoreCapabilities:
        """See Store. Writes a scratch key twice on condition: a store that can do it refuses the second."""
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        name = self._name(key)
        self._bucket.put_if_absent(name, b"first")
        conditional_put = not self._bucket.put_if_absent(name, b"other")
        self._looks_first = not conditional_put
        conditional_complete = self._refuses_to_complete(name)
        self.get(key, size_bytes_max=100)
        self.delete(key)
        return StoreCapabilities(conditional_put, conditional_complete)

    def _refuses_to_complete(self, name: str) -> bool:
        upload_id = self._bucket.begin(name)
        try:
            self._bucket.complete(name, upload_id, [self._bucket.put_part(name, upload_id, 1, b"other")])
        except StoreConflict:
            return True
        finally:
            self._bucket.abort(name, upload_id)
        return False

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)
