"""The rows of `bench.archive` about chains: what the second archive costs, and the restore after fifty."""

import os
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from node_agent.archive.commit import ArchiveRequest, ArchiveResult, NodeMemory, write_archive
from node_agent.archive.memory import Memory
from node_agent.store import Store
from state.model import TargetKind

CHAIN = 50
SECOND_S_MAX, SECOND_BYTES_MAX = 0.5, 10**6


class Chain:
    """One tree that is archived again and again by one node, each time on top of the archive before."""

    def __init__(self, store: Store, memory_dir: Path, tree: Path) -> None:
        self.last: ArchiveResult | None = None
        self._store = store
        self._memory_dir = memory_dir
        self._memory = Memory(memory_dir)
        self._tree = tree
        self._attempts = count(1)
        self._files = sorted(path for path in tree.rglob("*") if path.is_file())

    def change(self) -> None:
        """Write one file anew, of as many bytes."""
        path = self._files[next(self._attempts) * 37 % len(self._files)]
        path.write_bytes(os.urandom(path.stat().st_size))

    def archive(self, *, whole: bool = False) -> ArchiveResult:
        """What the agent does; `whole` as for a tree that it does not know."""
        node = NodeMemory(self._memory)
        if self.last and not whole:
            node = NodeMemory(self._memory, self.last.manifest_key, self.last.manifest_digest)
        request = ArchiveRequest(
            kind=TargetKind.WORKSPACE,
            target_id=f"w-{self._memory_dir.name}",
            user_id="bench",
            epoch=1,
            attempt=next(self._attempts),
            number=1,
            created_at=datetime.now(UTC),
            fingerprint={},
            method="volume",
        )
        before = {blob.key for blob in self.last.manifest.blobs} if self.last else set()
        self.last = write_archive(self._store, request, self._tree, node=node)
        self.new_bytes = sum(blob.size_bytes for blob in self.last.manifest.blobs if blob.key not in before)
        return self.last
