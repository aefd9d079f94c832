"""A tree that is being unpacked, on its way to the disk: written out beside it, whole at the end."""

import ctypes
import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from node_agent.archive.errors import RestoreDiskFull, RestoreFailed

# So much is unpacked before the disk is asked to begin: small trees are over sooner, large ones leave little
# for the end, and the other pods' writes are not pushed out all the time.
WRITE_BEHIND_BYTES = 64 << 20

_LIBC = ctypes.CDLL(None, use_errno=True)


class WriteBehind:
    """The file system of one directory, from before the first byte is written to it: the kernel tells of each
    write that failed since. For one thread. Leaving the block waits for what was begun."""

    def __init__(self, directory: Path) -> None:
        """Raises RestoreFailed where there is no such directory."""
        self._directory = directory
        try:
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise RestoreFailed(f"could not unpack into {directory}: {error.strerror}") from error
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._begun_at_bytes = 0
        self._syncing: Future[None] | None = None

    def wrote(self, done_bytes: int) -> None:
        """So much has been unpacked by now. Returns at once. Raises what `sync` raises."""
        if done_bytes - self._begun_at_bytes < WRITE_BEHIND_BYTES:
            return
        if self._syncing is not None and not self._syncing.done():
            return
        self._await()
        self._begun_at_bytes = done_bytes
        self.begin()

    def begin(self) -> None:
        """Have what is written by now brought to the disk, in the background."""
        self._await()
        self._syncing = self._pool.submit(self._sync)

    def sync(self) -> None:
        """Wait until all that was written before `begin` is on the disk.

        Raises RestoreDiskFull, RestoreFailed: also for what could not be written long before.
        """
        self._await()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        os.close(self._fd)

    def _await(self) -> None:
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()

    def _sync(self) -> None:
        if _LIBC.syncfs(self._fd) == 0:
            return
        number = ctypes.get_errno()
        why = f"could not sync {self._directory}: {os.strerror(number)}"
        raise (RestoreDiskFull if number in (errno.ENOSPC, errno.EDQUOT) else RestoreFailed)(why)
