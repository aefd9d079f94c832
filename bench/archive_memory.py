"""As many archives of a tree as an agent has under way, and a restore, in a process of its own; print by how
many KiB its peak passed its idle size.

python -m bench.archive_memory STORE_URL TREE EMPTY_DIRECTORY
"""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from node_agent.allocator import give_back_large_buffers
from node_agent.archive.commit import ArchiveRequest, ArchiveResult, unconditionally, write_archive
from node_agent.archive.restore import restore_archive
from node_agent.archive.turns import Turns
from node_agent.open_store import open_store
from node_agent.settings import Settings
from state.model import TargetKind


def _kib(what: str) -> int:
    found = re.search(rf"^{what}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def main() -> None:
    """Idle is measured after the store has been used once: its client is part of every idle agent."""
    give_back_large_buffers()
    store = open_store(sys.argv[1])
    store.probe()
    settings = Settings(node_id="bench")
    turns = Turns(settings.uploads_at_once)

    def archive(number: int) -> ArchiveResult:
        request = ArchiveRequest(
            kind=TargetKind.POD,
            target_id=f"p-memory-{number}",
            user_id="bench",
            epoch=1,
            attempt=1,
            number=1,
            created_at=datetime.now(UTC),
            fingerprint={"tree": "bench"},
            method="overlay2-upper",
        )
        return write_archive(store, request, Path(sys.argv[2]), turn=partial(turns.one, unconditionally))

    # 5 resets the peak to what is used now (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    idle = _kib("VmRSS")
    with ThreadPoolExecutor(settings.archives_under_way_max) as pool:
        made = list(pool.map(archive, range(settings.archives_under_way_max)))
    restore_archive(store, made[0].manifest, Path(sys.argv[3]))
    print(_kib("VmHWM") - idle)


if __name__ == "__main__":
    main()
