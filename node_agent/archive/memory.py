"""What this node remembers of archives, so that the next one costs only what changed: a cache, never a truth.

For each target: the record of the tree as it was when it was saved or restored, and of which archive; and a
layer that was uploaded and read back for an archive which then did not come to be. What is lost, damaged, of
another boot, or of another directory is not used: then the next archive is a full one.
"""

import json
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from node_agent.archive.manifest import BlobRef, Manifest
from state.model import TargetKind

TARGETS_MAX = 2_000
# An unfinished archive's layer is used again by the next attempt within this time. Whoever collects garbage
# leaves objects that no manifest names alone for longer than that.
UPLOAD_TRUSTED_S = 3600

_VERSION = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HEAD, _UPLOAD, _DRAFTS = "baseline.json", "upload.json", "drafts"


@dataclass(frozen=True, slots=True)
class Baseline:
    """The record of a tree, and the archive that it is of. `tree` is that of the archive's manifest."""

    manifest_digest: str
    tree: str | None
    records: Path


@dataclass(frozen=True, slots=True)
class UploadedLayer:
    """A layer in the store: of the tree with this fingerprint, on top of the archive with this digest."""

    tree: str
    base_digest: str | None
    blob: BlobRef


class Memory:
    """One directory of the agent's. Safe for several threads, one for each target. Raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        shutil.rmtree(directory / _DRAFTS, ignore_errors=True)

    @contextmanager
    def drafts(self) -> Iterator[Path | None]:
        """A directory for files under way, which goes afterwards; None where none can be made."""
        folder = self._directory / _DRAFTS / secrets.token_hex(8)
        try:
            folder.mkdir(parents=True)
        except OSError:
            yield None
            return
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def baseline(self, kind: TargetKind, target_id: str, source_dir: Path) -> Baseline | None:
        """What is known of this very directory."""
        head = _read_json(self._folder(kind, target_id) / _HEAD)
        if head is None or head.get("source") != _identity(source_dir):
            return None
        records = self._folder(kind, target_id) / str(head.get("records"))
        if not records.is_file():
            return None
        return Baseline(str(head.get("manifest_digest")), _text(head.get("tree")), records)

    def keep(self, manifest: Manifest, digest: str, source_dir: Path, records: Path) -> None:
        """The records, a file that is taken over, are of the directory as the archive has it."""
        folder = self._folder(manifest.kind, manifest.target_id)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"records-{secrets.token_hex(8)}.zst"
        records.rename(kept)
        self._write(folder / _HEAD, {
            "source": _identity(source_dir),
            "manifest_digest": digest,
            "tree": manifest.tree,
            "records": kept.name,
        })  # fmt: skip
        (folder / _UPLOAD).unlink(missing_ok=True)
        self._sweep(folder, kept)

    def upload(self, kind: TargetKind, target_id: str) -> UploadedLayer | None:
        """The layer of an archive that was begun a while ago."""
        found = _read_json(self._folder(kind, target_id) / _UPLOAD)
        if found is None or not 0 <= time.time() - float(str(found.get("at", 0))) < UPLOAD_TRUSTED_S:
            return None
        with suppress(ValueError):
            blob = BlobRef.model_validate(found.get("blob"))
            return UploadedLayer(str(found.get("tree")), _text(found.get("base_digest")), blob)
        return None

    def note_upload(self, kind: TargetKind, target_id: str, upload: UploadedLayer) -> None:
        """The layer is in the store, and was read back."""
        folder = self._folder(kind, target_id)
        folder.mkdir(parents=True, exist_ok=True)
        self._write(folder / _UPLOAD, {
            "at": time.time(),
            "tree": upload.tree,
            "base_digest": upload.base_digest,
            "blob": upload.blob.model_dump(mode="json"),
        })  # fmt: skip

    def _folder(self, kind: TargetKind, target_id: str) -> Path:
        return self._directory / f"{kind}-{target_id}"

    def _write(self, path: Path, fields: dict[str, object]) -> None:
        """In one step for whoever reads; not synced, for it does not count after a power cut."""
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        draft.write_text(json.dumps({"version": _VERSION, "boot": _boot_id(), **fields}))
        draft.replace(path)

    def _sweep(self, folder: Path, kept: Path) -> None:
        """Older records of the target; and of all targets, those that were not used for the longest time."""
        for old in folder.glob("records-*"):
            if old != kept:
                old.unlink(missing_ok=True)
        folders = [path for path in self._directory.iterdir() if path.name != _DRAFTS]
        if len(folders) > TARGETS_MAX:
            folders.sort(key=lambda path: path.stat().st_mtime)
            for unused in folders[: TARGETS_MAX // 10]:
                shutil.rmtree(unused, ignore_errors=True)


def _identity(source_dir: Path) -> dict[str, object]:
    """Of a directory on this node."""
    seen = source_dir.stat()
    return {"path": str(source_dir), "device": seen.st_dev, "inode": seen.st_ino}


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _read_json(path: Path) -> dict[str, object] | None:
    """What this version has written in this boot; a power cut may have taken files back without a trace."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or (found.get("version"), found.get("boot")) != (_VERSION, _boot_id()):
        return None
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
