"""Archives as others open them: tar and zip, made without a pod or a directory to unpack into."""

import os
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.archive import export
from node_agent.archive.commit import write_archive
from node_agent.archive.export import NOTES_NAME, ExportRefused, Part, as_tar, as_zip
from node_agent.archive.manifest import Manifest
from node_agent.directory_store import DirectoryStore
from state.model import TargetKind
from tests.support.archive_requests import REQUEST
from tests.support.trees import differences, snapshot


def write(chunks: Iterator[bytes], path: Path) -> Path:
    """A stream as a file."""
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
    return path


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An empty store."""
    return DirectoryStore(tmp_path / "store")


def strange_tree(root: Path) -> Path:
    """A bit of everything."""
    (root / "a b").mkdir(parents=True)
    (root / "a b" / "file").write_bytes(os.urandom(300_000))
    (root / "a b" / "file").chmod(0o4750)
    os.link(root / "a b" / "file", root / "second")
    (root / "link").symlink_to("a b/file")
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    (root / os.fsdecode(b"\xff strange")).write_bytes(b"x")
    os.utime(root / "a b" / "file", ns=(1, 1_600_000_000_123_456_789))
    return root


def archived(store: DirectoryStore, source: Path, kind: TargetKind = TargetKind.WORKSPACE) -> Manifest:
    """The tree in the store."""
    request = replace(REQUEST, kind=kind, target_id=f"{kind}-1", number=7)
    return write_archive(store, request, source).manifest


def test_a_tar_holds_all_of_it(store: DirectoryStore, tmp_path: Path) -> None:
    """Unpacked with public tools there is no difference."""
    source = strange_tree(tmp_path / "source")
    made = write(as_tar(store, [Part(archived(store, source))]), tmp_path / "out.tar")
    (tmp_path / "target").mkdir()
    options = ["--xattrs", "--xattrs-include=*", "-p", "--numeric-owner"]
    subprocess.run(["tar", "-xf", made, *options, "-C", tmp_path / "target"], check=True)
    assert differences(snapshot(source), snapshot(tmp_path / "target")) == []


def test_pod_and_workspace_together_lie_in_folders_of_their_own(
    store: DirectoryStore, tmp_path: Path
) -> None:
    """In one tar; names, links and times as they are."""
    source = strange_tree(tmp_path / "source")
    parts = [
        Part(archived(store, source, kind), str(kind)) for kind in (TargetKind.POD, TargetKind.WORKSPACE)
    ]
    made = write(as_tar(store, parts), tmp_path / "out.tar")
    (tmp_path / "target").mkdir()
    subprocess.run(["tar", "-xpf", made, "--sparse", "-C", tmp_path / "target"], check=True)
    for kind in ("pod", "workspace"):
        found = snapshot(tmp_path / "target" / kind)
        told = [line for line in differences(snapshot(source), found) if "sparse" not in line]
        assert told == []


def test_a_zip_holds_files_folders_and_links_and_names_the_rest(
    store: DirectoryStore, tmp_path: Path
) -> None:
    """As unzip gives it back; the pipe, the second name and the strange one are told in a text file."""
    source = strange_tree(tmp_path / "source")
    made = write(as_zip(store, [Part(archived(store, source))]), tmp_path / "out.zip")
    with zipfile.ZipFile(made) as zipped:
        assert zipped.testzip() is None
        notes = zipped.read(NOTES_NAME).decode()
        assert zipped.read("a b/file") == (source / "a b" / "file").read_bytes()
        assert zipped.getinfo("a b/file").external_attr >> 16 == 0o104750
        assert zipped.read("link") == b"a b/file"
        assert zipped.read("second") == b"a b/file"
        assert zipped.read("sparse") == bytes(1 << 20)
        assert "\\xff strange" in zipped.namelist()
    assert "archive 7 of 2026-01-02" in notes
    for word in ("pipe", "second", "strange", "owners"):
        assert word in notes


def test_a_zip_of_too_many_entries_is_refused_with_what_to_take(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory would not fit into the agent's memory."""
    monkeypatch.setattr(export, "ZIP_ENTRIES_MAX", 3)
    part = Part(archived(store, strange_tree(tmp_path / "source")))
    with pytest.raises(ExportRefused, match="Take the tar"):
        next(as_zip(store, [part]))
