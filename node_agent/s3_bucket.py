"""A bucket's objects and unfinished uploads, one request each, with our names and our errors."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypedDict

from boto3.s3.transfer import TransferConfig

from node_agent.s3_client import InvalidRange, NotOffered, told
from node_agent.store import CHUNK_BYTES, StoreConflict, StoredEntry, StoreNotFound, StoreUnavailable

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedMultipartUploadTypeDef

# S3 copies objects of up to 5 GiB in one request; larger ones go in parts, also inside the store.
_COPY = TransferConfig(multipart_threshold=5 << 30, multipart_chunksize=1 << 30)


class _Range(TypedDict, total=False):
    Range: str
    IfMatch: str


class _Condition(TypedDict, total=False):
    IfNoneMatch: str


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part as the store has it. The tag is its MD5, unless the store encrypts with keys of its own."""

    number: int
    size_bytes: int
    tag: str


@dataclass(frozen=True, slots=True)
class FetchedRange:
    """Some bytes of an object, how many there are in all, and which version of the object it was."""

    data: bytes
    total_bytes: int
    tag: str


class Bucket:
    """Names here are whole object names. Raises StoreError only. Safe to use from several threads."""

    def __init__(self, client: "S3Client", name: str, where: str) -> None:
        self._client = client
        self._bucket = name
        self._where = where

    # ---- objects -------------------------------------------------------------------------------------------

    def size(self, name: str) -> int | None:
        """In bytes; None where nothing is."""
        try:
            with told(f"look at {name}", self._where):
                return self._client.head_object(Bucket=self._bucket, Key=name)["ContentLength"]
        except StoreNotFound:
            return None

    def put(self, name: str, data: bytes) -> None:
        """Whatever was there."""
        with told(f"write {name}", self._where):
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Whether it was put; False when the store says that something is there. Not every store looks."""
        try:
            with told(f"write {name}", self._where):
                self._client.put_object(Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*")
        except StoreConflict:
            return False
        except NotOffered:
            self.put(name, data)
        return True

    def put_where_nothing_is(self, name: str, data: bytes, *, look_first: bool) -> bool:
        """Whether it was put, and nothing was there. Looking costs a request, and is not safe by itself."""
        there = look_first and self.size(name) is not None
        return not there and self.put_if_absent(name, data)

    def get(self, name: str) -> tuple[int, Generator[bytes, None, None]]:
        """Size and bytes, as one stream."""
        with told(f"read {name}", self._where):
            answer = self._client.get_object(Bucket=self._bucket, Key=name)
        return answer["ContentLength"], self._chunks(answer["Body"], name)

    def _chunks(self, body: "StreamingBody", name: str) -> Generator[bytes, None, None]:
        with body:
            while True:
                with told(f"read {name}", self._where):
                    chunk = body.read(CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk

    def get_range(self, name: str, first: int, length: int, tag: str | None = None) -> FetchedRange:
        """Bytes from `first` on, `length` at most; of the version with this tag, if one is given.

        Raises NotOffered where the server answers with other bytes than were asked for.
        """
        wanted: _Range = {"Range": f"bytes={first}-{first + length - 1}"}
        if tag is not None:
            wanted["IfMatch"] = tag
        try:
            with told(f"read {name}", self._where):
                answer = self._client.get_object(Bucket=self._bucket, Key=name, **wanted)
                with answer["Body"] as body:
                    total_bytes = _total(answer.get("ContentRange", ""), first)
                    data = body.read(length)
        except InvalidRange:
            return FetchedRange(b"", 0, "")
        if len(data) != min(length, max(total_bytes - first, 0)):
            raise StoreUnavailable(f"cannot read {name} in {self._where}: the answer was cut short")
        return FetchedRange(data, total_bytes, answer["ETag"])

    def copy(self, source: str, name: str) -> None:
        """Inside the store: no bytes come here."""
        with told(f"copy {source} to {name}", self._where):
            self._client.copy({"Bucket": self._bucket, "Key": source}, self._bucket, name, Config=_COPY)

    def names(self, prefix: str, limit: int) -> Iterator[str]:
        """The first names with this prefix, in byte order."""
        with told(f"list {prefix}", self._where):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket,
                Prefix=prefix,
                PaginationConfig={"MaxItems": limit, "PageSize": min(limit, 1000)},
            )
            for page in pages:
                yield from (item["Key"] for item in page.get("Contents", ()))

    def delete(self, name: str) -> None:
        """Nothing there is success."""
        with suppress(StoreNotFound), told(f"delete {name}", self._where):
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def page(self, prefix: str, start_after: str, limit: int) -> tuple[StoredEntry, ...]:
        """The first objects with this prefix, after a name if one is given; at most 1000."""
        with told(f"list {prefix}", self._where):
            answer = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, StartAfter=start_after, MaxKeys=min(limit, 1000)
            )
        found = answer.get("Contents", ())
        tags = [item["ETag"].strip('"') for item in found]
        return tuple(
            StoredEntry(item["Key"], item["Size"], item["LastModified"], tag)
            for item, tag in zip(found, tags, strict=True)
        )

    def delete_version(self, name: str, tag: str) -> bool:
        """Delete the object if it has this tag, where the store looks; whether it is gone."""
        try:
            with suppress(StoreNotFound), told(f"delete {name}", self._where):
                self._client.delete_object(Bucket=self._bucket, Key=name, IfMatch=f'"{tag}"')
        except StoreConflict:
            return False
        except NotOffered:
            self.delete(name)
        return True

    # ---- uploads in parts ----------------------------------------------------------------------------------

    def begin(self, name: str) -> str:
        """The id of a new upload."""
        with told(f"begin {name}", self._where):
            return self._client.create_multipart_upload(Bucket=self._bucket, Key=name)["UploadId"]

    def put_part(self, name: str, upload_id: str, number: int, data: bytes) -> SentPart:
        """Send a part; one of the same number is replaced."""
        with told(f"write part {number} of {name}", self._where):
            answer = self._client.upload_part(
                Bucket=self._bucket, Key=name, UploadId=upload_id, PartNumber=number, Body=data
            )
        return SentPart(number, len(data), answer["ETag"])

    def parts(self, name: str, upload_id: str) -> Iterator[tuple[SentPart, datetime]]:
        """The parts that have arrived, and when. Raises StoreNotFound for an upload that is over."""
        with told(f"look at the parts of {name}", self._where):
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self._bucket, Key=name, UploadId=upload_id
            )
            for page in pages:
                for part in page.get("Parts", ()):
                    sent = SentPart(part["PartNumber"], part["Size"], part["ETag"])
                    yield sent, part["LastModified"]

    def complete(
        self, name: str, upload_id: str, parts: Sequence[SentPart], *, if_absent: bool = True
    ) -> None:
        """Make the parts one object. Raises StoreConflict if something is there and the store looks, and
        StoreNotFound if the upload is over: by an earlier try whose answer was lost, or by an abort."""
        listed: CompletedMultipartUploadTypeDef = {
            "Parts": [{"ETag": part.tag, "PartNumber": part.number} for part in parts]
        }
        condition: _Condition = {"IfNoneMatch": "*"} if if_absent else {}
        try:
            with told(f"finish {name}", self._where):
                self._client.complete_multipart_upload(
                    Bucket=self._bucket, Key=name, UploadId=upload_id, MultipartUpload=listed, **condition
                )
        except NotOffered:
            self.complete(name, upload_id, parts, if_absent=False)

    def abort(self, name: str, upload_id: str) -> None:
        """Drop an upload and its parts; one that is over is success."""
        with suppress(StoreNotFound), told(f"drop {name}", self._where):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload_id)

    def uploads(self, prefix: str) -> Iterator[tuple[str, str, datetime]]:
        """Name, id and beginning of each unfinished upload."""
        with suppress(StoreNotFound), told(f"list the uploads below {prefix}", self._where):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=prefix
            )
            for page in pages:
                for upload in page.get("Uploads", ()):
                    yield upload["Key"], upload["UploadId"], upload["Initiated"]


def _total(content_range: str, first: int) -> int:
    """From `bytes 0-9/45`."""
    told_first = content_range.removeprefix("bytes ").partition("-")[0]
    if told_first != str(first):
        raise NotOffered("this server knows no ranges")
    return int(content_range.rpartition("/")[2])
