"""Archive and restore a tree in a process of its own; print by how many KiB its peak passed its idle size.

python -m bench.archive_memory STORE_URL TREE EMPTY_DIRECTORY
"""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from node_agent.archive.commit import ArchiveRequest, write_archive
from node_agent.archive.restore import restore_archive
from node_agent.open_store import open_store
from state.model import TargetKind


def _kib(what: str) -> int:
    found = re.search(rf"^{what}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def main() -> None:
    """Idle is measured after the store has been used once: its client is part of every idle agent."""
    store = open_store(sys.argv[1])
    store.probe()
    request = ArchiveRequest(
        kind=TargetKind.POD,
        target_id="p-memory",
        user_id="bench",
        epoch=1,
        attempt=1,
        number=1,
        created_at=datetime.now(UTC),
        fingerprint={"tree": "bench"},
        method="overlay2-upper",
    )
    # 5 resets the peak to what is used now (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    idle = _kib("VmRSS")
    made = write_archive(store, request, Path(sys.argv[2]))
    restore_archive(store, made.manifest, Path(sys.argv[3]))
    print(_kib("VmHWM") - idle)


if __name__ == "__main__":
    main()
