"""Files of a directory store: written durably, made visible in one step, and their errors in our words."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from node_agent.store import (
    StoreAccessDenied,
    StoreConflict,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreUnavailable,
)


def write_durably(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        write_all(file, data)
        os.fsync(file.fileno())


def write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def publish(draft: Path, path: Path, *, replace: bool) -> bool:
    _make_folder(path.parent)
    if replace:
        draft.replace(path)
    else:
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return False
    sync_folder(path.parent)
    return True


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn an OSError into the store error that says what to do."""
    try:
        yield
    except OSError as error:
        raise _store_error(what, error) from error


def _store_error(what: str, error: OSError) -> StoreError:
    why = f"cannot {what}: {error.strerror or error}"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR:
            return StoreNotFound(why)
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return StoreFull(
                f"{why}. Make room on the store's disk; nothing was lost, it will be tried again."
            )
        case errno.EEXIST:
            return StoreConflict(f"{why}. Another object has this key, or a part of it.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StoreAccessDenied(f"{why}. Give the node agent's user write access to the directory.")
        case _:
            return StoreUnavailable(why)
