"""The store port on S3 and what speaks like it. The only module that knows boto3.

Nothing rests on what some servers lack: object metadata, checksums of ranges, conditional puts.
"""

import hashlib
import secrets
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from node_agent.store import (
    CHUNK_BYTES,
    LIST_LIMIT_MAX,
    PROBE_PREFIX,
    BlobWriter,
    Store,
    StoreAccessDenied,
    StoreCapabilities,
    StoreConflict,
    StoredBlob,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreTooLarge,
    StoreUnavailable,
    check_key,
    settle_conflict,
)

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

# A fast default on a local network and on a wide one; S3 takes 10,000 parts, so a blob may have 80 GB.
PART_BYTES = 8 << 20
PARTS_IN_FLIGHT_MAX = 4
PARTS_MAX = 10_000
CONNECTIONS_MAX = 32
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
TRIES_MAX = 3

_NOT_THERE = frozenset({"404", "NoSuchKey", "NotFound"})
_DENIED = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)
_FULL = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "NoSpaceLeft"})
_PRESENT = frozenset({"412", "409", "PreconditionFailed", "ConditionalRequestConflict"})
_NOT_OFFERED = frozenset({"501", "NotImplemented"})


class S3Store(Store):
    """Keys below `prefix` in one bucket. Credentials come from where AWS tools look."""

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint_url: str | None = None,
        region: str | None = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        self._where = f"bucket {bucket!r} at {endpoint_url or 'AWS'}"
        self._client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region or "us-east-1",
            config=_config(path_style=endpoint_url is not None),
        )

    def open_writer(self, key: str) -> BlobWriter:
        """See Store. Up to 8 MiB are one put, more are parts of 8 MiB with four on their way."""
        return _PartsWriter(self._client, self._bucket, self._name(key), key, self._where)

    @contextmanager
    def open_reader(self, key: str) -> Iterator[Iterator[bytes]]:
        """See Store."""
        with _told(f"read {key}", self._where):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key))
        with answer["Body"] as body:
            yield _chunks(body, f"read {key}", self._where)

    def put_manifest(self, key: str, data: bytes, *, only_if_absent: bool = True) -> None:
        """See Store. Looks first, for servers that ignore the condition and overwrite."""
        name = self._name(key)
        if not only_if_absent:
            with _told(f"write {key}", self._where):
                self._client.put_object(Bucket=self._bucket, Key=name, Body=data)
        elif self.head(key) is not None or not self._put_if_absent(name, data):
            settle_conflict(self, key, data)

    def get(self, key: str, size_bytes_max: int) -> bytes:
        """See Store."""
        with _told(f"read {key}", self._where):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key))
            with answer["Body"] as body:
                if answer["ContentLength"] <= size_bytes_max:
                    return body.read()
        raise StoreTooLarge(f"{key} has more than the {size_bytes_max} bytes that are read of it")

    def head(self, key: str) -> int | None:
        """See Store."""
        try:
            with _told(f"look at {key}", self._where):
                return self._client.head_object(Bucket=self._bucket, Key=self._name(key))["ContentLength"]
        except StoreNotFound:
            return None

    def list(self, prefix: str, limit: int = LIST_LIMIT_MAX) -> tuple[str, ...]:
        """See Store."""
        found: list[str] = []
        with _told(f"list {prefix}", self._where):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket,
                Prefix=self._prefix + prefix,
                PaginationConfig={"MaxItems": limit, "PageSize": min(limit, LIST_LIMIT_MAX)},
            )
            for page in pages:
                found += [item["Key"].removeprefix(self._prefix) for item in page.get("Contents", ())]
        return tuple(found)

    def delete(self, key: str) -> None:
        """See Store."""
        try:
            with _told(f"delete {key}", self._where):
                self._client.delete_object(Bucket=self._bucket, Key=self._name(key))
        except StoreNotFound:
            return

    def probe(self) -> StoreCapabilities:
        """See Store. Puts a scratch key twice on condition: a store that can do it refuses the second."""
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        name = self._name(key)
        self._put_if_absent(name, b"first")
        conditional = not self._put_if_absent(name, b"other")
        self.get(key, size_bytes_max=100)
        self.delete(key)
        return StoreCapabilities(conditional_put=conditional)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _put_if_absent(self, name: str, data: bytes) -> bool:
        """Whether it was put; False when the store says that something is there."""
        try:
            with _told(f"write {name}", self._where):
                try:
                    self._client.put_object(Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*")
                except ClientError as error:
                    if _code(error) not in _NOT_OFFERED:
                        raise
                    self._client.put_object(Bucket=self._bucket, Key=name, Body=data)
        except StoreConflict:
            return False
        return True


class _PartsWriter(BlobWriter):
    """Collects a part at a time; the upload is begun with the second part. Holds five parts at most."""

    def __init__(self, client: "S3Client", bucket: str, name: str, key: str, where: str) -> None:
        self._client = client
        self._bucket = bucket
        self._name = name
        self._key = key
        self._where = where
        self._buffer = bytearray()
        self._running = hashlib.sha256()
        self._size_bytes = 0
        self._upload_id: str | None = None
        self._threads = ThreadPoolExecutor(PARTS_IN_FLIGHT_MAX, thread_name_prefix="s3-part")
        self._in_flight: deque[Future[CompletedPartTypeDef]] = deque()
        self._done: list[CompletedPartTypeDef] = []
        self._open = True

    def write(self, data: bytes) -> None:
        self._check_open()
        self._running.update(data)
        self._size_bytes += len(data)
        self._buffer += data
        while len(self._buffer) > PART_BYTES:
            self._send_part(bytes(self._buffer[:PART_BYTES]))
            del self._buffer[:PART_BYTES]

    def commit(self) -> StoredBlob:
        self._check_open()
        if self._upload_id is None:
            self._put_whole()
        else:
            self._send_part(bytes(self._buffer))
            self._complete()
        self._close()
        return StoredBlob(self._key, self._size_bytes, self._running.hexdigest())

    def abort(self) -> None:
        if not self._open:
            return
        self._close()
        if self._upload_id is not None:
            self._abort_upload(self._upload_id)

    def _send_part(self, data: bytes) -> None:
        if self._upload_id is None:
            self._upload_id = self._begin_upload()
        number = len(self._done) + len(self._in_flight) + 1
        if number > PARTS_MAX:
            raise StoreTooLarge(f"{self._key} is larger than {PARTS_MAX} parts of {PART_BYTES} bytes")
        if len(self._in_flight) >= PARTS_IN_FLIGHT_MAX:
            self._done.append(self._in_flight.popleft().result())
        self._in_flight.append(self._threads.submit(self._put_part, self._upload_id, number, data))

    def _begin_upload(self) -> str:
        with _told(f"begin {self._key}", self._where):
            return self._client.create_multipart_upload(Bucket=self._bucket, Key=self._name)["UploadId"]

    def _put_part(self, upload_id: str, number: int, data: bytes) -> "CompletedPartTypeDef":
        with _told(f"write part {number} of {self._key}", self._where):
            answer = self._client.upload_part(
                Bucket=self._bucket, Key=self._name, UploadId=upload_id, PartNumber=number, Body=data
            )
        return {"ETag": answer["ETag"], "PartNumber": number}

    def _put_whole(self) -> None:
        with _told(f"write {self._key}", self._where):
            self._client.put_object(Bucket=self._bucket, Key=self._name, Body=bytes(self._buffer))

    def _complete(self) -> None:
        while self._in_flight:
            self._done.append(self._in_flight.popleft().result())
        with _told(f"finish {self._key}", self._where):
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._name,
                UploadId=self._upload_id or "",
                MultipartUpload={"Parts": self._done},
            )

    def _abort_upload(self, upload_id: str) -> None:
        # Runs on the way out of another error: that one is worth telling, and nothing became visible.
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._name, UploadId=upload_id)
        except (BotoCoreError, ClientError):
            return

    def _close(self) -> None:
        self._open = False
        self._buffer.clear()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"the writer of {self._key} is closed")


def _chunks(body: "StreamingBody", what: str, where: str) -> Iterator[bytes]:
    while True:
        with _told(what, where):
            chunk = body.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _config(*, path_style: bool) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=CONNECTIONS_MAX,
        retries={"mode": "standard", "max_attempts": TRIES_MAX},
        s3={"addressing_style": "path" if path_style else "auto"},
        # Other servers answer a ranged read with the whole object's checksum; ours are in the manifest.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


@contextmanager
def _told(what: str, where: str) -> Iterator[None]:
    """Turn what boto3 raises into the store error that says what to do."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StoreAccessDenied(
            f"cannot {what} in {where}: no credentials were found. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY for the node agent, or give its machine a role."
        ) from error
    except ClientError as error:
        raise _store_error(what, where, error) from error
    except (BotoCoreError, OSError) as error:
        raise StoreUnavailable(f"cannot {what} in {where}: {error}") from error


def _store_error(what: str, where: str, error: ClientError) -> StoreError:
    code = _code(error)
    why = f"cannot {what} in {where}: {code} {error.response.get('Error', {}).get('Message', '')}".rstrip()
    if code in _PRESENT:
        return StoreConflict(why)
    if code in _NOT_THERE:
        return StoreNotFound(why)
    if code == "NoSuchBucket":
        return StoreNotFound(f"{why}. Create the bucket, or correct the store URL.")
    if code in _DENIED:
        return StoreAccessDenied(
            f"{why}. Check the access key, its secret, and that its policy allows reading and writing there."
        )
    if code in _FULL or "no space left" in why.lower():
        return StoreFull(f"{why}. Make room in the store; nothing was lost, it will be tried again.")
    return StoreUnavailable(why)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
