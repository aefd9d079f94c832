"""How this node gets at a pod's changes: the fast way, the safe way, and the probe that picks one.

Fast: the engine keeps them in a directory that is read and written directly. Safe: through the engine's
public API only, slower, and with losses that are told. Archives made one way are restored the other too.
"""

import secrets
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

import structlog

from node_agent.archive.errors import ArchiveError
from node_agent.archive.member_tar import END, write_member
from node_agent.archive.safe_capture import lay_out_changes
from node_agent.errors import EngineUnavailable, StepError
from node_agent.host import disk_errors
from node_agent.runtime import Container, Runtime
from node_agent.source import Source

PROBE_FILE = "probe"

log = structlog.get_logger(__name__)


class Way(StrEnum):
    """How a node gets at the changes of its pods."""

    FAST = "fast"
    SAFE = "safe"


@dataclass(frozen=True, slots=True)
class Found:
    """What was picked, and why it is not the fast way (empty where it is)."""

    way: Way
    why: str = ""


class Ways:
    """Picks once, at the first question, by really trying. Safe to use from several threads."""

    def __init__(self, runtime: Runtime, wanted: Literal["auto", "fast", "safe"], scratch_dir: Path) -> None:
        self._runtime = runtime
        self._wanted = wanted
        self._scratch_dir = scratch_dir
        self._lock = threading.Lock()
        self._found: Found | None = None

    def found(self) -> Found:
        """Raises EngineUnavailable while nothing can be tried."""
        with self._lock:
            if self._found is None:
                self._found = self._pick()
                log.info("archive.way", way=self._found.way, why=self._found.why)
            return self._found

    def _pick(self) -> Found:
        if self._wanted == "fast":
            return Found(Way.FAST)
        if self._wanted == "safe":
            return Found(Way.SAFE, "CODEPODS_ARCHIVE_WAY asks for it")
        why_not = probe(self._runtime)
        return Found(Way.SAFE, why_not) if why_not else Found(Way.FAST)

    def upper_dir(self, container: Container) -> Path:
        """For the fast way. Raises StepError where the engine does not show it."""
        found = self._runtime.files.upper_dir(container)
        if found is None:
            raise StepError(
                "This engine does not show where a container's changes are. "
                "Set CODEPODS_ARCHIVE_WAY=auto on this node, or use the overlay2 storage driver.",
                code="archive_unsupported",
                permanent=True,
            )
        return Path(found)

    @contextmanager
    def changes_of(self, container: Container) -> Iterator[Source]:
        """A stopped container's changes as a directory, for as long as the block lasts."""
        if self.found().way is Way.FAST:
            yield Source(self.upper_dir(container), "overlay2-upper")
            return
        with self.scratch() as folder:
            try:
                notices = lay_out_changes(self._runtime.files, container.id, folder)
            except ArchiveError as error:
                raise StepError(f"Could not save it: {error}.", code=error.code) from error
            yield Source(folder, "engine-api", notices)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that only root can reach, gone at the end."""
        top = self._scratch_dir / secrets.token_hex(8)
        with disk_errors("make a scratch folder"):
            self._scratch_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            (top / "tree").mkdir(mode=0o700, parents=True)
        try:
            yield top / "tree"
        finally:
            _remove(top)

    def sweep(self) -> None:
        """Remove what a former run of the agent left; for its start."""
        _remove(self._scratch_dir)


def _remove(folder: Path) -> None:
    # rm: trees may be deeper than Python can follow.
    subprocess.run(("rm", "-rf", "--", folder), check=False, capture_output=True)


def probe(runtime: Runtime) -> str:
    """Why the fast way cannot be gone here; empty where it was really gone, there and back.

    A file written through the engine has to show in the directory, and one written there in the engine.
    Raises EngineUnavailable when it could not be tried.
    """
    try:
        with runtime.files.scratch_container() as container_id:
            return _try_fast_way(runtime, container_id)
    except EngineUnavailable:
        raise
    except (StepError, OSError) as error:
        return f"trying it failed: {error}"


def _try_fast_way(runtime: Runtime, container_id: str) -> str:
    container = runtime.inspect(container_id)
    upper = container and runtime.files.upper_dir(container)
    if not upper:
        return f"the engine ({runtime.facts().storage_driver}) does not show where changes are"
    folder, token = Path(upper), secrets.token_hex(16)
    if not folder.is_dir():
        return f"{folder} cannot be seen from here"
    runtime.files.write_tree(container_id, _tar_of(PROBE_FILE, token.encode()))
    try:
        there = (folder / PROBE_FILE).read_text()
    except OSError as error:
        return f"a file written through the engine cannot be read in {folder}: {error.strerror}"
    if there != token:
        return f"a file written through the engine reads otherwise in {folder}"
    (folder / f"{PROBE_FILE}-back").write_text(token)
    seen = runtime.files.type_of(container_id, f"/{PROBE_FILE}-back")
    return "" if seen else f"a file written into {folder} does not show in the engine"


def _tar_of(name: str, data: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    yield from write_member(info, iter((data,)))
    yield END
