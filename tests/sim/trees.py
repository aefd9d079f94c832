"""Directories as bytes: a user only ever appends, so that what was acknowledged is known exactly.

`scan`, `fingerprint`, `capture` and `restore` stand where the archive meets the file system and tar; the
order of an archive (node_agent.archive.commit) and its errors (node_agent.archives) are production's.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node_agent.archive.capture import Captured
from node_agent.archive.errors import (
    ArchiveCorrupt,
    ArchiveError,
    CaptureFailed,
    RestoreCorrupt,
    RestoreDiskFull,
    RestoreFailed,
    SourceChanged,
)
from node_agent.archive.fingerprint import TreeScan
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.store import BlobWriter, Store, StoreNotFound
from tests.sim.scheduler import Scheduler


@dataclass(eq=False)
class Tree:
    """A directory. `inode` and `changes` are what a real one has in its stat fields."""

    inode: int
    data: bytes = b""
    changes: int = 0

    @property
    def fingerprint(self) -> str:
        """Of this very tree, as it is now."""
        text = f"{self.inode} {self.changes} {len(self.data)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def append(self, data: bytes) -> None:
        """A write that is acknowledged when this returns."""
        self.data += data
        self.changes += 1


@dataclass(eq=False)
class Trees:
    """All directories of all nodes, by path, and the port to them."""

    scheduler: Scheduler
    by_path: dict[str, Tree] = field(default_factory=dict)
    inodes: int = 0
    # Whether the disk that a path is on has no room now.
    is_full: Callable[[str], bool] = lambda _path: False

    def make(self, path: str) -> Tree:
        """A new, empty directory."""
        self.inodes += 1
        tree = self.by_path[path] = Tree(self.inodes)
        return tree

    def drop(self, path: str) -> None:
        """The engine removed it."""
        self.by_path.pop(path, None)

    def drop_all(self, folder: str) -> None:
        """The machine is gone."""
        self.by_path = {path: tree for path, tree in self.by_path.items() if not path.startswith(folder)}

    def scan(self, root: Path) -> TreeScan:
        """Stands for `scan_tree`."""

        def effect() -> TreeScan:
            tree = self._tree(root, SourceChanged)
            return TreeScan(tree.fingerprint, 1, len(tree.data), (), 0, (), 0)

        return self.scheduler.call("tree.scan", effect, CaptureFailed)

    def fingerprint(self, root: Path) -> str:
        """Stands for `tree_fingerprint`."""
        return self.scan(root).fingerprint

    def capture(self, source_dir: Path, writer: BlobWriter, **_options: Any) -> Captured:
        """Stands for `capture_tree`: reads in two halves, with time for somebody to write in between."""
        with writer:
            tree = self._open(source_dir, CaptureFailed)
            half = len(tree.data) // 2
            writer.write(tree.data[:half])
            rest = self.scheduler.call("tree.read", lambda: tree.data[half:], CaptureFailed)
            writer.write(rest)
            stored = writer.commit()
        blob = BlobRef(
            key=stored.key, size_bytes=stored.size_bytes, sha256=stored.sha256, tar_bytes=half + len(rest)
        )
        return Captured(blob, ())

    def rewrite(self, store: Store, manifest: Manifest, key: str, _progress: object) -> BlobRef:
        """Stands for the compaction's `_rewrite`: the layers' content as one."""
        data = b""
        for blob in manifest.blobs:
            with store.open_reader(blob.key) as chunks:
                layer = b"".join(chunks)
            if hashlib.sha256(layer).hexdigest() != blob.sha256:
                raise ArchiveCorrupt(f"blob {blob.key} is not what its manifest says")
            data += layer
        with store.open_writer(key) as writer:
            writer.write(data)
            stored = writer.commit()
        return BlobRef(
            key=stored.key, size_bytes=stored.size_bytes, sha256=stored.sha256, tar_bytes=len(data)
        )

    @contextmanager
    def fetching(self, store: Store, manifest: Manifest) -> Iterator[tuple[Store, Manifest]]:
        """Stands for `fetching`: nothing is known of the blobs before they are unpacked."""
        yield store, manifest

    def unpack(self, coming: tuple[Store, Manifest], target_dir: Path, **_options: Any) -> None:
        """Stands for `unpack_archive`."""
        self.restore(*coming, target_dir)

    def restore(self, store: Store, manifest: Manifest, target_dir: Path) -> None:
        """Stands for `restore_archive`: unpacks as it reads, and knows at the end whether all was well."""
        tree = self._open(target_dir, RestoreFailed)
        for blob in manifest.blobs:
            running, size_bytes = hashlib.sha256(), 0
            try:
                with store.open_reader(blob.key) as chunks:
                    for chunk in chunks:
                        self._write(tree, chunk, str(target_dir))
                        running.update(chunk)
                        size_bytes += len(chunk)
            except StoreNotFound as error:
                raise RestoreCorrupt(f"blob {blob.key} is not in the store") from error
            if (size_bytes, running.hexdigest()) != (blob.size_bytes, blob.sha256):
                raise RestoreCorrupt(f"blob {blob.key} is not what its manifest says")

    def _tree(self, path: Path, missing: type[ArchiveError]) -> Tree:
        try:
            return self.by_path[str(path)]
        except KeyError:
            raise missing(f"{path} is not there") from None

    def _open(self, path: Path, missing: type[ArchiveError]) -> Tree:
        """As tar has it: what is removed meanwhile is written to in vain, whatever takes its path."""
        return self.scheduler.call("tree.open", lambda: self._tree(path, missing), missing)

    def _write(self, tree: Tree, data: bytes, path: str) -> None:

        def effect() -> None:
            if self.is_full(path):
                raise RestoreDiskFull("No space is left on the device.")
            tree.append(data)

        self.scheduler.call("tree.write", effect, RestoreFailed, mutates=True, detail=path)
