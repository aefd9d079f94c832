"""Lab content from the store into a user's workspace, once, and never over a learner's work.

Unpacked beside the volume's directory, where no pod can reach, then moved in with one rename.
"""

import io
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from typing_extensions import Buffer

from node_agent.archive.member_tar import OfWholeTar
from node_agent.errors import StepError
from node_agent.host import POD_UID, disk_errors
from node_agent.runtime import Volume
from node_agent.store import Store, StoreNotFound

LAB_BYTES_MAX = 4 << 30
LAB_ENTRIES_MAX = 200_000
COPY_CHUNK_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def lab_key(lab: str) -> str:
    """Where the store keeps a lab."""
    return f"labs/{lab}.tar"


def lab_is_there(volume: Volume, lab: str) -> bool:
    """Something of that name is in the workspace: then it is the learner's, whatever it is."""
    return os.path.lexists(Path(volume.mountpoint) / _checked(lab))


def place_lab(store: Store, volume: Volume, lab: str, pod_id: str) -> None:
    """Put the lab's files at /workspaces/<lab>, owned by the pod's user. One call per pod at a time.

    Raises StepError: `lab_not_found` and `lab_invalid` are permanent. StoreError passes through.
    """
    draft = Path(volume.mountpoint).parent / f"lab-{pod_id}"
    with disk_errors(f"unpack the lab {lab!r}"):
        shutil.rmtree(draft, ignore_errors=True)
        try:
            _unpack(store, lab, draft)
            _move_in(draft, Path(volume.mountpoint) / _checked(lab))
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _checked(lab: str) -> str:
    if not _NAME.fullmatch(lab):
        raise StepError(
            f"{lab[:80]!r} cannot be a lab's name. Use lower-case letters, digits, '.', '_' and '-'.",
            code="lab_not_found",
            permanent=True,
        )
    return lab


def _move_in(draft: Path, place: Path) -> None:
    if os.path.lexists(place):
        return
    try:
        draft.rename(place)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return
    except OSError:
        if not os.path.lexists(place):
            raise


def _unpack(store: Store, lab: str, draft: Path) -> None:
    try:
        with store.open_reader(lab_key(lab)) as chunks:
            _unpack_tar(lab, io.BufferedReader(_ChunkFile(chunks), COPY_CHUNK_BYTES), draft)
    except StoreNotFound as error:
        raise StepError(
            f"The lab {lab!r} is not in the object store (looked for {lab_key(lab)}). "
            "Check the lab's name, or publish it.",
            code="lab_not_found",
            permanent=True,
        ) from error
    except tarfile.TarError as error:
        raise _invalid(lab, f"it is not a tar archive that can be read ({error})") from error


def _unpack_tar(lab: str, file: IO[bytes], draft: Path) -> None:
    _make_dir(draft)
    links: set[PurePosixPath] = set()
    total_bytes = 0
    dirs: list[tuple[Path, tarfile.TarInfo]] = []
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=OfWholeTar) as tar:
        for count, member in enumerate(tar):
            total_bytes += member.size
            if count >= LAB_ENTRIES_MAX or total_bytes > LAB_BYTES_MAX:
                raise _invalid(
                    lab, f"it is larger than {LAB_ENTRIES_MAX} entries or {LAB_BYTES_MAX >> 30} GiB"
                )
            path = _safe_path(lab, member.name, links)
            _place_member(lab, tar, member, draft / path)
            if member.issym():
                links.add(path)
            if member.isdir():
                dirs.append((draft / path, member))
    for place, member in reversed(dirs):
        _set_times(place, member)


def _safe_path(lab: str, name: str, links: set[PurePosixPath]) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _invalid(lab, f"{name[:80]!r} leads out of the lab")
    if path in links or not links.isdisjoint(path.parents):
        raise _invalid(lab, f"{name[:80]!r} lies behind a symbolic link")
    return path


def _place_member(lab: str, tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    _make_dir(place if member.isdir() else place.parent)
    if member.isdir():
        place.chmod(0o700 | stat.S_IMODE(member.mode) & 0o777)
    elif member.issym():
        place.symlink_to(member.linkname)
        os.lchown(place, POD_UID, POD_UID)
    elif member.isreg():
        _write_file(tar, member, place)
    else:
        raise _invalid(lab, f"{member.name[:80]!r} is neither a file, a directory nor a symbolic link")


def _write_file(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    place.unlink(missing_ok=True)
    with place.open("xb") as target:
        shutil.copyfileobj(source, target, COPY_CHUNK_BYTES)
        os.fchown(target.fileno(), POD_UID, POD_UID)
        os.fchmod(target.fileno(), 0o600 | stat.S_IMODE(member.mode) & 0o777)
    _set_times(place, member)


def _set_times(place: Path, member: tarfile.TarInfo) -> None:
    os.utime(place, (member.mtime, member.mtime))


def _make_dir(place: Path) -> None:
    missing = [path for path in (place, *place.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o755)
        os.chown(path, POD_UID, POD_UID)


def _invalid(lab: str, why: str) -> StepError:
    return StepError(
        f"The lab {lab!r} was not unpacked: {why}. Publish it again.", code="lab_invalid", permanent=True
    )


class _ChunkFile(io.RawIOBase):
    """Chunks of bytes as a file that can only be read forward."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        target = memoryview(buffer)
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
