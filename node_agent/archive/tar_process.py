"""One GNU tar as a child process: a pipe to or from it, its warnings kept, never left behind."""

import fcntl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from node_agent.archive.fingerprint import printable
from node_agent.store import CHUNK_BYTES

# ACLs travel as the system.posix_acl_* attributes, by number: tar's own --acls writes user names, and
# another node has other users. The excluded attributes belong to this node alone: its overlay mount's
# bookkeeping, and the labels of its security modules.
_CREATE = (
    "--create",
    "--format=posix",
    "--pax-option=delete=atime,delete=ctime",
    "--numeric-owner",
    "--sparse",
    "--xattrs",
    "--xattrs-include=*",
    "--xattrs-exclude=trusted.overlay.origin",
    "--xattrs-exclude=trusted.overlay.impure",
    "--xattrs-exclude=trusted.overlay.uuid",
    "--xattrs-exclude=security.selinux",
    "--xattrs-exclude=security.ima",
    "--xattrs-exclude=security.evm",
)
# tar names sparse files by its process id. As the first process of a namespace it writes the same bytes for
# the same tree each time, so that an upload goes on where it was cut.
_ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--")
# A chain's layers follow one another: folders get their times when all that is in them is there.
_EXTRACT = (
    "--extract",
    "--delay-directory-restore",
    "--numeric-owner",
    "--same-owner",
    "--preserve-permissions",
    "--xattrs",
    "--xattrs-include=*",
    "--warning=no-timestamp",
)
# TAR_OPTIONS of the caller must not reach tar; messages must be the untranslated ones.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_PIPE_BYTES = CHUNK_BYTES  # the most that Linux gives without a privilege
_SOCKET_WARNING = b": socket ignored\n"
_MESSAGES_MAX = 20
_MESSAGE_BYTES_MAX = 500


def create_argv(source_dir: Path, members: Path | None = None) -> list[str]:
    """Write the tree to standard output, with names relative to it; or those of its members alone that a
    file lists, each ended by a zero byte, in the same form as tar writes them."""
    listed = ["--no-recursion", "--null", "--verbatim-files-from", f"--files-from={members}"]
    return [
        *_ALONE,
        "tar",
        *_CREATE,
        "--file=-",
        f"--directory={source_dir}",
        *(listed if members else ["."]),
    ]


def extract_argv(target_dir: Path) -> list[str]:
    """Unpack standard input into a directory. Run it confined only: the tar is a stranger's data."""
    return ["tar", *_EXTRACT, "--file=-", f"--directory={target_dir}"]


class TarProcess:
    """A running tar. Leaving the `with` block kills it if it still runs."""

    def __init__(self, argv: Sequence[str], *, extracts: bool) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if extracts else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if extracts else subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            bufsize=0,
        )
        pipe = self._process.stdin if extracts else self._process.stdout
        fcntl.fcntl(_present(pipe), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._messages: list[str] = []
        self._listener = threading.Thread(target=self._listen, name="tar-messages", daemon=True)
        self._listener.start()

    def read_chunks(self) -> Iterator[bytes]:
        """The tar as it is written, in chunks of at most 1 MiB."""
        output = _present(self._process.stdout)
        while chunk := output.read(CHUNK_BYTES):
            yield chunk

    def feed(self, data: bytes) -> bool:
        """Hand bytes to tar; False when it no longer takes any."""
        pipe, view = _present(self._process.stdin), memoryview(data)
        try:
            while view:
                view = view[pipe.write(view) :]
        except BrokenPipeError:
            return False
        return True

    def finish(self) -> tuple[int, tuple[str, ...]]:
        """Wait for the end. Exit code and messages, the words about sockets left out."""
        if self._process.stdin:
            self._process.stdin.close()
        code = self._process.wait()
        self._listener.join()
        return code, tuple(self._messages)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self.finish()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    def _listen(self) -> None:
        errors = _present(self._process.stderr)
        with open(errors.fileno(), "rb", closefd=False) as lines:
            while line := lines.readline(_MESSAGE_BYTES_MAX):
                if not line.endswith(_SOCKET_WARNING) and len(self._messages) < _MESSAGES_MAX:
                    self._messages.append(printable(line.rstrip(b"\n")))


def _present(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("this pipe was not asked for")
    return pipe
