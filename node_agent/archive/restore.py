"""From an archive in the store to a tree on disk: fetched, checked and unpacked in one bounded pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node_agent.archive.ahead import ahead
from node_agent.archive.confinement import TREE, confined_argv
from node_agent.archive.errors import ArchiveCorrupt, RestoreCorrupt, RestoreDiskFull, RestoreFailed
from node_agent.archive.layer_stream import Names, tree_tar, unpacked
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.archive.progress import Progress, unwatched
from node_agent.archive.tar_process import TarProcess, extract_argv
from node_agent.archive.write_behind import WriteBehind
from node_agent.store import Store

# tar's words when a file system is full; the last one when some of a write still fitted.
_FULL_DISK = ("No space left on device", "Disk quota exceeded", "Wrote only")


@dataclass(frozen=True, slots=True)
class Origins:
    """Which layer of its archive each path of a restored tree has come from; most from the largest."""

    largest: int
    others: dict[int, set[bytes]]

    def layer_of(self, path: bytes) -> int:
        """`path` as in the index. A look at each of the smaller layers."""
        return next((layer for layer, paths in self.others.items() if path in paths), self.largest)


def no_matter(origins: Origins) -> None:
    """For callers that do not want to know where paths came from."""


@dataclass(frozen=True, slots=True)
class Fetching:
    """An archive's tar on its way from the store: `chunks` come as they are unzipped."""

    chunks: Iterator[bytes]
    tar_bytes: int
    origins: Origins


@contextmanager
def fetching(store: Store, manifest: Manifest) -> Iterator[Fetching]:
    """Begin to fetch and to unzip, some chunks ahead: what is unpacked into may be made meanwhile.

    Nothing of it is known to be right before `unpack_archive` has returned.
    """
    layers = manifest.layers
    largest = max(range(len(layers)), key=lambda number: layers[number].tar_bytes)
    names: Names = {number: set() for number in range(len(layers)) if number != largest}
    with ahead(tree_tar(store, manifest, names)) as chunks:
        yield Fetching(chunks, sum(layer.tar_bytes for layer in layers), Origins(largest, names))


def unpack_archive(
    coming: Fetching,
    target_dir: Path,
    *,
    meanwhile: Callable[[Origins], None] = no_matter,
    progress: Progress = unwatched,
) -> None:
    """Unpack an archive into an existing directory, and have it on the disk; see `_unpack`.

    `meanwhile` is called when all is unpacked, while the last of it is synced.
    """
    with WriteBehind(target_dir) as disk:

        def note(done_bytes: int, total_bytes: int) -> None:
            disk.wrote(done_bytes)
            progress(done_bytes, total_bytes)

        _unpack(coming.chunks, target_dir, coming.tar_bytes, note)
        disk.begin()
        meanwhile(coming.origins)
        disk.sync()


def restore_archive(
    store: Store,
    manifest: Manifest,
    target_dir: Path,
    *,
    meanwhile: Callable[[Origins], None] = no_matter,
    progress: Progress = unwatched,
) -> None:
    """Fetch and unpack in one; see `unpack_archive`."""
    with fetching(store, manifest) as coming:
        unpack_archive(coming, target_dir, meanwhile=meanwhile, progress=progress)


def restore_tree(store: Store, blob: BlobRef, target_dir: Path, *, progress: Progress = unwatched) -> None:
    """Unpack one layer alone, dead members too; see `_unpack`."""
    with ahead(unpacked(store, blob)) as chunks:
        _unpack(chunks, target_dir, blob.tar_bytes, progress)


def _unpack(chunks: Iterator[bytes], target_dir: Path, total_bytes: int, progress: Progress) -> None:
    """Nothing outside of the directory can be written. Only a return says that the tree is whole.

    On RestoreCorrupt (the archive is not what was archived), RestoreFailed (this node could not) and
    StoreError, the caller discards the directory.
    """
    argv = confined_argv(target_dir.absolute(), extract_argv(TREE))
    try:
        with TarProcess(argv, extracts=True) as tar:
            done_bytes, taken = 0, True
            for data in chunks:
                taken = tar.feed(data)
                if not taken:
                    break
                done_bytes += len(data)
                progress(done_bytes, max(done_bytes, total_bytes))
            code, messages = tar.finish()
    except ArchiveCorrupt as error:
        raise RestoreCorrupt(str(error)) from error
    if code != 0 or messages or not taken:
        raise _failure(target_dir, code, messages)


def _failure(target_dir: Path, code: int, messages: tuple[str, ...]) -> RestoreFailed:
    said = "; ".join(messages) or "nothing"
    why = f"could not unpack into {target_dir} (exit {code}), tar said: {said}"
    if any(full in message for message in messages for full in _FULL_DISK):
        return RestoreDiskFull(
            f"{why}. Make room on the node's disk; the archive is well, it is tried again."
        )
    return RestoreFailed(why)
