"""Files of whoever calls podctl: what an import sends, and where a download is written."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from api.podctl.failing import Failed

_CHUNK_BYTES = 1 << 18


@contextmanager
def tar_of(source: Path) -> Iterator[Iterator[bytes]]:
    """A folder as a tar, a file as it is, `-` for standard input.

    Raises `Failed`, also while it is read, for what cannot be read; a request that sends it is cut then, and
    what is cut is not imported.
    """
    if str(source) == "-":
        yield _read(sys.stdin.buffer)
    elif source.is_dir():
        argv = ["tar", "--create", "--file=-", f"--directory={source}", "."]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as tar:
            yield _whole(tar, source)
    else:
        with _told(f"read {source}"), source.open("rb") as file:
            yield _read(file)


@contextmanager
def written(output: Path | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file, which has its name when all is in it. Raises `Failed`."""
    if output is None:
        with _told("write to standard output"):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    with _told(f"write {output}"):
        place = output.resolve()
        if place.exists() and not place.is_file():  # a device, a FIFO
            with place.open("wb") as file:
                yield file
            return
        part = place.with_name(f"{place.name}.{secrets.token_hex(4)}.part")
        try:
            with part.open("xb") as file:
                yield file
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)


def _read(file: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(file.read, _CHUNK_BYTES), b"")


def _whole(tar: "subprocess.Popen[bytes]", source: Path) -> Iterator[bytes]:
    assert tar.stdout is not None
    yield from _read(tar.stdout)
    if tar.wait() != 0:
        raise Failed(
            "source_unreadable",
            f"Not all of {source} could be read: tar says why, above. Nothing was imported.",
            "Make it readable, or import a copy without what cannot be read.",
        )


@contextmanager
def _told(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed("file_error", f"Cannot {doing}: {error.strerror or error}.") from error
