"""docs/archive-format.md: its commands, run as they stand, give a user's files back without us."""

# Names here are bytes, as the kernel has them; a Path would tidy some of them.
# ruff: noqa: PTH102, PTH108, PTH123

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.archive.commit import NodeMemory, write_archive
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.archive.memory import Memory
from node_agent.directory_store import DirectoryStore
from tests.support.archive_requests import REQUEST as OF_A_WORKSPACE
from tests.support.random_trees import STRANGE_NAMES
from tests.support.trees import differences, settle, snapshot

REQUEST = replace(OF_A_WORKSPACE, epoch=3, attempt=5, fingerprint={})
DOCUMENT = Path(__file__).parents[2] / "docs" / "archive-format.md"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A workspace with a lab, some of it strange."""
    folder = tmp_path / "source"
    (folder / "hello").mkdir(parents=True)
    (folder / "hello" / "main.c").write_text("int main(void) { return 0; }\n")
    (folder / "large").write_bytes(os.urandom(1 << 20))
    os.link(folder / "hello" / "main.c", folder / "same.c")
    os.setxattr(folder / "same.c", "user.note", b"\x00\xff")
    (folder / "quiet").mkdir()
    (folder / "quiet" / "edited").write_text("before")
    os.utime(folder / "quiet", ns=(1, 1_000_000_001))
    os.chown(folder / "hello", 1000, 1000)
    os.utime(folder / "hello", ns=(1, -1_000_000_001))
    return folder


def test_the_documented_commands_bring_everything_back(source: Path, tmp_path: Path) -> None:
    """Inspect, verify, list, extract as oneself, one file alone, and exactly: all of them work."""
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
    store, out = DirectoryStore(tmp_path / "store"), tmp_path / "out"
    node = NodeMemory(Memory(tmp_path / "memory"))
    make_strange(source)
    before = snapshot(source)
    settle()
    first = write_archive(store, REQUEST, source, node=node)
    change_strange(source)
    changed = snapshot(source)
    node = replace(node, base_key=first.manifest_key, base_digest=first.manifest_digest)
    second = write_archive(store, replace(REQUEST, attempt=6), source, node=node)
    assert [blob.role for blob in second.manifest.blobs] == ["tree", "tree", "index"]
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
    assert (out / "mine" / "same.c").read_bytes() == (out / "exact" / "same.c").read_bytes()
    assert (out / "one" / "hello" / "main.c").exists()
    assert not (out / "one" / "same.c").exists()
    assert differences(before, snapshot(out / "exact")) == []
    assert differences(changed, snapshot(out / "chain")) == []


def make_strange(source: Path) -> None:
    """A folder of names that a list of exclusions could get wrong."""
    folder = os.fsencode(source / "strange")
    os.mkdir(folder)
    for name in STRANGE_NAMES:
        _write(folder + b"/" + name, b"before")


def change_strange(source: Path) -> None:
    """Files gone or changed, one of them in a folder that stays; a folder replaced by a file, a link cut."""
    (source / "quiet" / "edited").write_text("after")
    folder = os.fsencode(source / "strange")
    for number, name in enumerate(STRANGE_NAMES):
        if number % 3 == 0:
            os.unlink(folder + b"/" + name)
        elif number % 3 == 1:
            _write(folder + b"/" + name, b"after")
    (source / "same.c").unlink()
    (source / "hello" / "main.c").rename(source / "main.c")
    (source / "hello").rmdir()
    (source / "hello").write_text("a file now")


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


@pytest.mark.parametrize("model", [Manifest, BlobRef])
def test_every_field_is_documented(model: type[Manifest | BlobRef]) -> None:
    """The table names each field of the manifest and of a blob."""
    text = DOCUMENT.read_text()
    missing = [name for name in model.model_fields if f"`{name}`" not in text and f".{name}`" not in text]
    assert missing == []
