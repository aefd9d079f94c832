"""Compaction as a chore: a long chain becomes one layer; the database has the last word."""

from pathlib import Path

import pytest

from node_agent.archive import changes as planning
from node_agent.archive.commit import ArchiveResult, check_archive
from node_agent.archive.compact import is_worth_compacting
from node_agent.archive.memory import Memory
from tests.integration.test_store_chores import Installation
from tests.property.test_archive_chain_laws import Place
from tests.support.control import Control
from tests.support.trees import Snapshot, differences, snapshot


@pytest.fixture
def chain(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Installation, Place, ArchiveResult, Snapshot]:
    """Archive number 4 of a pod is a chain of ten layers, nothing of which was ever folded."""
    monkeypatch.setattr(planning, "folded_from", lambda live_bytes, *_: len(live_bytes))
    installation = Installation(control, tmp_path / "store")
    installation.put_away(4)
    here = Place(tmp_path, installation.store, Memory(tmp_path / "memory"))
    source = here.fresh("source")
    for number in range(10):
        (source / f"file-{number}").write_bytes(b"x" * 5000)
        (source / "always").write_bytes(b"y" * (1000 + number))
        made = here.archive(source)
    assert is_worth_compacting(made.manifest)
    point = "UPDATE archive SET manifest_key = %s, manifest_digest = %s"
    control.rows(f"{point} WHERE number = 4 AND target_kind = 'pod'", made.manifest_key, made.manifest_digest)
    return installation, here, made, snapshot(source)


def kept(control: Control) -> tuple[str, str]:
    """Where archive number 4 is, by the database."""
    row = control.row("SELECT * FROM archive WHERE number = 4 AND target_kind = 'pod'")
    return row["manifest_key"], row["manifest_digest"]


def test_a_long_chain_becomes_one_layer_of_the_same_content(
    control: Control, chain: tuple[Installation, Place, ArchiveResult, Snapshot]
) -> None:
    """The archive changes hands; a short chain is left as it is; nothing is looked at twice."""
    installation, here, made, before = chain
    assert installation.attend().count("compact") == 2
    key, digest = kept(control)
    assert key != made.manifest_key
    manifest = check_archive(installation.store, key, digest)
    assert (len(manifest.layers), manifest.index) == (1, None)
    assert differences(before, snapshot(here.restored(ArchiveResult(key, digest, manifest)))) == []
    (event,) = control.events("compacted")
    assert event["from_value"].startswith("10 layers")
    control.rows("UPDATE store_target SET check_at = now()")
    assert installation.attend().count("compact") == 0
    # The chain was made under the name of a pod that is in no database.
    assert installation.alarms() == {"target_unknown"}


def test_an_archive_that_has_moved_on_is_not_handed_over(
    control: Control, chain: tuple[Installation, Place, ArchiveResult, Snapshot]
) -> None:
    """The compare-and-set refuses; what was written for nothing is cleared away like all else."""
    installation, _, made, _ = chain
    hand_over = Installation.do_chores

    def meanwhile(self: Installation, *args: object) -> list[str]:
        control.rows("UPDATE archive SET manifest_digest = 'other' WHERE number = 4 AND target_kind = 'pod'")
        return hand_over(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Installation, "do_chores", meanwhile)
        installation.attend()
    assert kept(control) == (made.manifest_key, "other")
    assert control.events("compacted") == []
