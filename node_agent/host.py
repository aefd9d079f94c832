"""The agent's files on the node: session secrets of pods, and the markers that say a volume is whole.

A volume cannot be renamed, so a marker beside its directory (never inside: that belongs to the user) says
whether it was finished. It is removed by the engine together with the volume.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node_agent.directory_files import write_all
from node_agent.errors import DiskFull, StepError
from node_agent.runtime import GATE_FILE, REMOVALS_FILE, Volume, VolumeState

POD_UID = 1000  # `coder` in every pod image
SESSION_BYTES = 32
MARKER = "codepods.json"
SESSION_FILE = "session"
_SECRET = re.compile(r"[0-9a-f]{64}")


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Run file operations; an OSError becomes a StepError. `doing` begins the message: "write x"."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"Could not {doing}: the node's disk is full. Make room on the node; it is tried again."
            ) from error
        raise StepError(
            f"Could not {doing}: {error.strerror or error}. The agent needs root and its data directory.",
            code="host_io",
        ) from error


def write_atomically(
    path: Path, data: bytes, mode: int = 0o600, owner: int | None = None, *, durably: bool = True
) -> None:
    """Replace a file in one step: readers see the old bytes or the new. Raises OSError.

    Not `durably`: for what a power cut makes worthless anyway. What is read after one may be anything.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb", buffering=0) as file:
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                os.fchown(file.fileno(), owner, owner)
            write_all(file, data)
            if durably:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durably:
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class HostFiles:
    """Files below the agent's data directory, and markers beside the engine's volumes."""

    def __init__(self, data_dir: Path) -> None:
        self._pods_dir = data_dir.absolute() / "pods"

    def session_dir(self, pod_id: str, epoch: int) -> str:
        """The directory that a container mounts at /run/codepods, made if missing."""
        path = self._pods_dir / f"{pod_id}-e{epoch}"
        with disk_errors("make the pod's session directory"):
            path.mkdir(parents=True, exist_ok=True)
            # The pod's user reads its own secret by number; nobody on the node may read any.
            self._pods_dir.chmod(0o700)
            path.chmod(0o755)
        return str(path)

    def write_session(self, session_dir: str) -> str:
        """A new session secret, 64 hex characters, readable by the pod's user."""
        secret = secrets.token_hex(SESSION_BYTES)
        with disk_errors("write the pod's session secret"):
            Path(session_dir).mkdir(parents=True, exist_ok=True)
            # Of this start alone: no start outlives a power cut.
            file = Path(session_dir) / SESSION_FILE
            write_atomically(file, secret.encode(), 0o400, POD_UID, durably=False)
        return secret

    def read_session(self, session_dir: str | None) -> str | None:
        """The secret that the container was started with, or None where it cannot be read."""
        if session_dir is None:
            return None
        try:
            secret = (Path(session_dir) / SESSION_FILE).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return secret if _SECRET.fullmatch(secret) else None

    def drop_session(self, pod_id: str, epoch: int) -> None:
        """Forget a removed pod's secret; gone already is success."""
        shutil.rmtree(self._pods_dir / f"{pod_id}-e{epoch}", ignore_errors=True)

    def shut_gate(self, session_dir: str, removals: bytes) -> None:
        """Have a gated container wait at its next start, with a list of what is to be removed in it."""
        with disk_errors("shut the pod's gate"):
            write_atomically(Path(session_dir) / REMOVALS_FILE, removals)
            write_atomically(Path(session_dir) / GATE_FILE, b"")

    def open_gate(self, session_dir: str) -> None:
        """Let its next start be a real one; open already is success."""
        with disk_errors("open the pod's gate"):
            (Path(session_dir) / GATE_FILE).unlink(missing_ok=True)
            (Path(session_dir) / REMOVALS_FILE).unlink(missing_ok=True)

    def volume_state(self, volume: Volume | None) -> VolumeState:
        """Whole only with a marker that says so; half only if nothing of a user can be in it."""
        if volume is None:
            return VolumeState.ABSENT
        with disk_errors(f"look into volume {volume.name}"):
            marked = _marked(volume)
            if marked is not None:
                return marked
            empty = next(Path(volume.mountpoint).iterdir(), None) is None
            return VolumeState.HALF if empty else VolumeState.STRANGE

    def mark(self, volume: Volume, state: VolumeState) -> None:
        """Say beside the volume that it is being filled (HALF), or finished (WHOLE)."""
        with disk_errors(f"mark volume {volume.name} as {state}"):
            write_atomically(_marker(volume), json.dumps({"volume": volume.name, "state": state}).encode())

    def own_top(self, volume: Volume) -> None:
        """Give an empty volume to the pod's user."""
        with disk_errors(f"set the owner of volume {volume.name}"):
            os.chown(volume.mountpoint, POD_UID, POD_UID)
            Path(volume.mountpoint).chmod(0o755)


def _marker(volume: Volume) -> Path:
    return Path(volume.mountpoint).parent / MARKER


def _marked(volume: Volume) -> VolumeState | None:
    try:
        content = json.loads(_marker(volume).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return None
    if not isinstance(content, dict) or content.get("volume") != volume.name:
        return None
    state = content.get("state")
    return VolumeState(state) if state in (VolumeState.HALF, VolumeState.WHOLE) else None
