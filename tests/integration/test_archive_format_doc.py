"""docs/archive-format.md: its commands, run as they stand, give a user's files back without us."""

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node_agent.archive.commit import ArchiveRequest, write_archive
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.directory_store import DirectoryStore
from state.model import TargetKind
from tests.support.trees import differences, snapshot

DOCUMENT = Path(__file__).parents[2] / "docs" / "archive-format.md"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A workspace with a lab, some of it strange."""
    folder = tmp_path / "source"
    (folder / "hello").mkdir(parents=True)
    (folder / "hello" / "main.c").write_text("int main(void) { return 0; }\n")
    os.link(folder / "hello" / "main.c", folder / "same.c")
    os.setxattr(folder / "same.c", "user.note", b"\x00\xff")
    os.chown(folder / "hello", 1000, 1000)
    os.utime(folder / "hello", ns=(1, -1_000_000_001))
    return folder


def test_the_documented_commands_bring_everything_back(source: Path, tmp_path: Path) -> None:
    """Inspect, verify, list, extract as oneself, one file alone, and exactly: all of them work."""
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
    before, out = snapshot(source), tmp_path / "out"
    request = ArchiveRequest(
        kind=TargetKind.WORKSPACE,
        target_id="w-1",
        user_id="alice",
        epoch=3,
        attempt=5,
        number=1,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        fingerprint={"tree": "f"},
        method="volume",
    )
    write_archive(DirectoryStore(tmp_path / "store"), request, source)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env={**os.environ, "STORE": str(tmp_path / "store"), "WORKSPACE_ID": "w-1", "OUT": str(out)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert "tree.tar.zst: OK" in ran.stdout
    assert "./hello/main.c" in ran.stdout
    assert (out / "mine" / "same.c").read_text() == (source / "same.c").read_text()
    assert (out / "one" / "hello" / "main.c").exists()
    assert not (out / "one" / "same.c").exists()
    assert differences(before, snapshot(out / "exact")) == []


@pytest.mark.parametrize("model", [Manifest, BlobRef])
def test_every_field_is_documented(model: type[Manifest | BlobRef]) -> None:
    """The table names each field of the manifest and of a blob."""
    text = DOCUMENT.read_text()
    missing = [name for name in model.model_fields if f"`{name}`" not in text and f".{name}`" not in text]
    assert missing == []
