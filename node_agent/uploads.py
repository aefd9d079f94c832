"""Which blobs this node has begun to write and not finished, so that a retry sends only what is missing.

One small file per blob under way, in the agent's own data directory: it names the unfinished write in the
store (an S3 upload id, or a draft's file name). What of it has arrived is asked of the store itself. If a
file is lost or damaged, the blob is written from its start; nothing else rests on it.

An unfinished write belongs to one family: the key without its attempt. So a later attempt of the same node at
the same epoch goes on where an earlier one ended; another epoch never does (LAW 5).
"""

import hashlib
import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from node_agent.host import write_atomically

VERSION = 1
FILE_BYTES_MAX = 10_000

_ATTEMPT = re.compile(r"(?<=/)(\d+)-(\d+)(?=/)")


@dataclass(frozen=True, slots=True)
class BegunWrite:
    """A write that was begun under `key` and not finished. `token` is the store's own name for it."""

    key: str
    token: str
    begun_at: datetime


class UploadJournal:
    """Safe to use from several threads. Without a folder nothing is kept, and every write starts anew."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._claimed: set[str] = set()

    def claim(self, key: str) -> "Claim":
        """The right to go on with this key's family; one writer at a time has it, others start anew."""
        family = family_of(key)
        with self._lock:
            free = self._folder is not None and family not in self._claimed
            if free:
                self._claimed.add(family)
        begun = self._read(self._path(family)) if free else None
        if begun is not None and attempt_of(begun.key) > attempt_of(key):
            # A late copy of an older attempt: the newer one's half is not its business.
            self.release(family)
            return Claim(self, key, kept=False, begun=None)
        return Claim(self, key, kept=free, begun=begun)

    def release(self, family: str) -> None:
        """Let another writer claim the family."""
        with self._lock:
            self._claimed.discard(family)

    def forget_older(self, before: datetime) -> None:
        """Forget writes that were begun before then and that nobody works on. Raises OSError."""
        if self._folder is None or not self._folder.is_dir():
            return
        with self._lock:
            claimed = set(self._claimed)
        for path in self._folder.glob("*.json"):
            begun = self._read(path)
            if begun is not None and begun.begun_at < before and family_of(begun.key) not in claimed:
                path.unlink(missing_ok=True)

    def remember(self, key: str, token: str) -> None:
        """Keep a write that has just begun. Durable on return; raises OSError."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {"version": VERSION, "key": key, "token": token, "begun_at": datetime.now(UTC).isoformat()}
        write_atomically(self._path(family_of(key)), json.dumps(content).encode())

    def forget(self, key: str) -> None:
        """The write of this family is finished, or dropped."""
        if self._folder is not None:
            self._path(family_of(key)).unlink(missing_ok=True)

    def _path(self, family: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{hashlib.sha256(family.encode()).hexdigest()[:32]}.json"

    def _read(self, path: Path) -> BegunWrite | None:
        try:
            with path.open("rb") as file:
                content = json.loads(file.read(FILE_BYTES_MAX))
            if content["version"] != VERSION:
                return None
            begun_at = datetime.fromisoformat(content["begun_at"])
            return BegunWrite(str(content["key"]), str(content["token"]), begun_at)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)
            return None


class Claim:
    """One writer's hold on the unfinished write of its key's family. `kept`: what it begins is remembered."""

    def __init__(self, journal: UploadJournal, key: str, *, kept: bool, begun: BegunWrite | None) -> None:
        self._journal = journal
        self._key = key
        self.kept = kept
        self.begun = begun

    def remember(self, token: str) -> None:
        """A write was begun under the writer's own key. A disk without room only costs the retry more."""
        if self.kept:
            with suppress(OSError):
                self._journal.remember(self._key, token)

    def forget(self) -> None:
        """What was begun is finished or dropped."""
        self.begun = None
        if self.kept:
            self._journal.forget(self._key)

    def release(self) -> None:
        """The writer is closed."""
        if self.kept:
            self.kept = False
            self._journal.release(family_of(self._key))


def family_of(key: str) -> str:
    """The key with its attempt left open: `archives/pod/p-1/3-*/tree.tar.zst`. Pure."""
    return _ATTEMPT.sub(r"\1-*", key, count=1)


def attempt_of(key: str) -> int:
    """The attempt in a key; 0 in a key without one. Pure."""
    found = _ATTEMPT.search(key)
    return int(found[2]) if found else 0
