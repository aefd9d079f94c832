"""Deliberate bugs in archives of several layers."""

from tests.mutants.runner import Mutant

_FORMAT = "tests/integration/test_archive_format_doc.py"
_CHAIN = "tests/integration/test_archive_chain.py"
_DISK = "tests/integration/test_archive_to_disk.py"

CHAIN_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "what is deleted stays alive in its layer",
        "LAW 8",
        "node_agent/archive/changes.py",
        "        if before is not None:\n            found.gone.append((layer, member_name(before.path)))",
        "        if before is not None and now is not None:\n"
        "            found.gone.append((layer, member_name(before.path)))",
        (f"{_CHAIN}::test_what_is_gone_stays_gone",),
    ),
    Mutant(
        "a layer lacks the folders above its members",
        "LAW 8",
        "node_agent/archive/changes.py",
        "            if layer == _CHANGED or path in found.folders:",
        "            if layer == _CHANGED:",
        (f"{_FORMAT}::test_the_documented_commands_bring_everything_back",),
    ),
    Mutant(
        "a record of another boot is trusted",
        "LAW 8",
        "node_agent/archive/memory.py",
        '(found.get("version"), found.get("boot")) != (_VERSION, _boot_id())',
        'found.get("version") != _VERSION',
        (f"{_CHAIN}::test_a_memory_of_something_else_is_not_trusted",),
    ),
    Mutant(
        "a broken base is built on",
        "LAW 7",
        "node_agent/archive/commit.py",
        "Base(node.base_digest, check_archive(store, node.base_key, node.base_digest))",
        "Base(node.base_digest, read_manifest(store, node.base_key, node.base_digest))",
        (f"{_CHAIN}::test_a_base_that_is_broken_is_not_built_on",),
    ),
    Mutant(
        "a restore does not count what it unpacks",
        "LAW 8",
        "node_agent/archive/layer_stream.py",
        "    if kept != manifest.entries:",
        "    if False:",
        (f"{_CHAIN}::test_the_index_cannot_hide_a_file",),
    ),
    Mutant(
        "a restore ends before all of it is on the disk",
        "LAW 8",
        "node_agent/archive/restore.py",
        "        disk.sync()",
        "        pass",
        (f"{_DISK}::test_what_is_not_on_the_disk_is_not_restored",),
    ),
    Mutant(
        "only what was written early is synced",
        "LAW 8",
        "node_agent/archive/restore.py",
        "        disk.begin()",
        "        pass",
        (f"{_DISK}::test_the_last_sync_begins_when_all_is_there",),
    ),
    Mutant(
        "an early sync's error is forgotten",
        "LAW 8",
        "node_agent/archive/write_behind.py",
        "            syncing.result()",
        "            syncing.exception()",
        (f"{_DISK}::test_a_write_that_failed_long_before_is_told",),
    ),
    Mutant(
        "a change right after a restore passes for what was restored",
        "LAW 8",
        "node_agent/archive/records.py",
        "    return now_ns\n",
        "    return time.time_ns()\n",
        ("tests/unit/node_agent/test_file_clock.py",),
    ),
    Mutant(
        "one more compresses than has a turn",
        "LAW 15",
        "node_agent/archive/turns.py",
        "BoundedSemaphore(at_once_max)",
        "BoundedSemaphore(at_once_max + 1)",
        ("tests/unit/node_agent/test_turns.py",),
    ),
)
