"""The manifest: what an archive is made of. Pure; written last, so that it is the archive's commit point.

A manifest names every blob needed for a restore, wherever they lie in the store: no other manifest has to be
read. So a blob may lie under the prefix of an earlier attempt of the same target, and it is alive as long as
any live manifest names it. docs/archive-format.md describes the format for people.
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from node_agent.archive.errors import ManifestInvalid
from node_agent.store import check_key
from state.model import TargetKind

FORMAT: Final = 2
FORMATS_READ: Final = (1, 2)
MANIFEST_BYTES_MAX = 50_000_000
BLOBS_MAX = 10_000
NOTICES_MAX = 200
NOTICE_LENGTH_MAX = 1000
TAR_ZSTD: Final = "application/x-tar+zstd"
INDEX_ZSTD: Final = "application/x-codepods-index+zstd"
MANIFEST_NAME = "manifest.json"

Method = Literal["overlay2-upper", "engine-api", "volume"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BlobRef(_Part):
    """One blob: a layer of the tree, or the index, which says what in the layers is dead.

    `size_bytes` and `sha256` are of the bytes in the store, `tar_bytes` is the size unpacked. `live_bytes`
    says about how many of a layer's bytes are still part of the tree; format 1 does not know it.
    """

    key: str
    size_bytes: Count
    sha256: Sha256
    media_type: Literal["application/x-tar+zstd", "application/x-codepods-index+zstd"] = TAR_ZSTD
    role: Literal["tree", "index"] = "tree"
    tar_bytes: Count
    live_bytes: Count | None = None

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        return check_key(key)


class Manifest(_Part):
    """A complete, immutable archive of one pod's changes or one workspace.

    `number` counts the target's archives; `fingerprint` says which source this was made of (LAW 8);
    `image_id` pins the image that a pod's changes lie on; `notices` say what could not be kept. `tree` is
    the digest of the source's stat scan: compaction keeps it, so equal values mean the same content.
    """

    format: Literal[1, 2] = FORMAT
    kind: Annotated[TargetKind, Field(strict=False)]
    target_id: Identifier
    user_id: Annotated[str, Field(min_length=1, max_length=1000)]
    epoch: Count
    attempt: Count
    number: Count
    created_at: Annotated[AwareDatetime, Field(strict=False)]
    fingerprint: dict[str, str]
    image_id: str | None = None
    image_ref: str | None = None
    method: Method
    blobs: Annotated[tuple[BlobRef, ...], Field(min_length=1, max_length=BLOBS_MAX, strict=False)]
    entries: Count
    tree: Sha256 | None = None
    notices: Annotated[tuple[str, ...], Field(max_length=NOTICES_MAX, strict=False)] = ()

    @field_validator("created_at")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(UTC)

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        roles = [blob.role for blob in self.blobs]
        if "index" in roles[:-1]:
            raise ValueError("the index comes once, after the layers")
        if len(self.layers) == 0 or (self.format > 1 and len(self.layers) > 1 and self.index is None):
            raise ValueError("layers without an index, or an index without layers")
        if self.format == 1 and (self.index or self.tree or any(blob.live_bytes for blob in self.blobs)):
            raise ValueError("format 1 has neither an index nor digests and live bytes of trees")
        return self

    @property
    def layers(self) -> tuple[BlobRef, ...]:
        """The blobs that hold the tree, oldest first."""
        return tuple(blob for blob in self.blobs if blob.role == "tree")

    @property
    def index(self) -> BlobRef | None:
        """The blob that names the dead members of the layers; None where all are alive."""
        return self.blobs[-1] if self.blobs[-1].role == "index" else None

    @property
    def size_bytes(self) -> int:
        """Of all blobs in the store, the manifest not counted."""
        return sum(blob.size_bytes for blob in self.blobs)


def to_bytes(manifest: Manifest) -> bytes:
    """Canonical JSON: ASCII, sorted keys, no spaces, one newline at the end. Equal manifests, equal bytes."""
    text = json.dumps(_fields(manifest), sort_keys=True, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _fields(manifest: Manifest) -> dict[str, object]:
    """What format 1 did not know is left out where it is not known: its bytes stay what they were."""
    fields = manifest.model_dump(mode="json")
    for part in (fields, *fields["blobs"]):
        for name in ("tree", "live_bytes"):
            if name in part and part[name] is None:
                del part[name]
    return fields


def digest(data: bytes) -> str:
    """Hex SHA-256 of a manifest's bytes: what the database keeps of an archive."""
    return hashlib.sha256(data).hexdigest()


def parse(data: bytes) -> Manifest:
    """Read a manifest strictly. Raises ManifestInvalid for whatever `to_bytes` cannot have written."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise ManifestInvalid(f"the manifest has {len(data)} bytes; at most {MANIFEST_BYTES_MAX} are read")
    fields = _json_object(data)
    _refuse_other_formats(fields.get("format"))
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ManifestInvalid(f"the manifest's field {where!r} is wrong: {first['msg']}") from error


def _json_object(data: bytes) -> dict[str, object]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"the manifest is not JSON: {error}. It was cut or changed.") from error
    if not isinstance(fields, dict):
        raise ManifestInvalid("the manifest is not a JSON object")
    return fields


def _refuse_other_formats(version: object) -> None:
    if isinstance(version, int) and version > FORMAT:
        raise ManifestInvalid(
            f"the archive has format {version}, written by a newer codepods; this one reads up to {FORMAT}. "
            "Upgrade the node agents."
        )
    if version not in FORMATS_READ or type(version) is not int:
        raise ManifestInvalid(f"this is no codepods manifest: its format is {version!r}, not {FORMAT}")


def archive_prefix(kind: TargetKind, target_id: str, epoch: int, attempt: int) -> str:
    """Where one attempt at one epoch keeps its objects: no two attempts share a key (LAW 5)."""
    return f"archives/{kind}/{target_id}/{epoch}-{attempt}"


def blob_key(kind: TargetKind, target_id: str, epoch: int, attempt: int, name: str) -> str:
    """The key of a blob of this attempt."""
    return check_key(f"{archive_prefix(kind, target_id, epoch, attempt)}/{name}")


def manifest_key(kind: TargetKind, target_id: str, epoch: int, attempt: int) -> str:
    """The key of this attempt's manifest."""
    return blob_key(kind, target_id, epoch, attempt, MANIFEST_NAME)
