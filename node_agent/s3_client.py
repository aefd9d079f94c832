"""One S3 client and its errors in our words. With the `s3_*` modules beside it, all that knows boto3."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from node_agent.store import (
    StoreAccessDenied,
    StoreConflict,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECTIONS_MAX = 32
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
TRIES_MAX = 3

# A part or range that still fails after boto3's own tries is tried again, after a pause that doubles.
PART_TRIES_MAX = 3
PART_RETRY_FIRST_S = 0.5

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
_PRESENT = frozenset({"412", "PreconditionFailed"})
# Somebody else wrote or deleted at the same moment: S3 asks to begin again.
_BEGIN_AGAIN = frozenset({"409", "ConditionalRequestConflict"})
_NOT_OFFERED = frozenset({"501", "NotImplemented"})


class NotOffered(StoreError):
    """This server does not know what was asked of it. Never leaves the `s3_*` modules."""

    code = "store_not_offered"


class UploadGone(StoreNotFound):
    """An upload in parts is over: finished, dropped by the store, or by somebody else."""


class InvalidRange(StoreError):
    """The object has no such bytes. Never leaves the `s3_*` modules."""

    code = "store_invalid_range"


def make_client(endpoint_url: str | None, region: str | None) -> "S3Client":
    """A client whose credentials come from where AWS tools look. Contacts nobody yet."""
    client: S3Client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region or "us-east-1",
        config=_config(path_style=endpoint_url is not None),
    )
    return client


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
def told(what: str, where: str) -> Iterator[None]:
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
    said = error.response.get("Error", {})
    code = str(said.get("Code", "unknown"))
    why = f"cannot {what} in {where}: {code} {said.get('Message', '')}".rstrip()
    if code in _DENIED:
        return StoreAccessDenied(
            f"{why}. Check the access key, its secret, and that its policy allows reading and writing there."
        )
    if code in _FULL or "no space left" in why.lower():
        return StoreFull(f"{why}. Make room in the store; nothing was lost, it will be tried again.")
    if code == "NoSuchBucket":
        return StoreNotFound(f"{why}. Create the bucket, or correct the store URL.")
    for codes, kind in _KINDS:
        if code in codes:
            return kind(why)
    return StoreUnavailable(why)


_KINDS: tuple[tuple[frozenset[str], type[StoreError]], ...] = (
    (_PRESENT, StoreConflict),
    (_NOT_THERE, StoreNotFound),
    (frozenset({"NoSuchUpload"}), UploadGone),
    (_NOT_OFFERED, NotOffered),
    (_BEGIN_AGAIN, StoreUnavailable),
    (frozenset({"416", "InvalidRange"}), InvalidRange),
)
