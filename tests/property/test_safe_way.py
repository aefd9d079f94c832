"""Laws of the safe way's pure parts: what is asked of the engine, what is removed, and tars made of tars."""

import os
import tarfile
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.archive.member_tar import END, content, header, members, open_tar, raw, write_member
from node_agent.archive.safe_capture import as_json_shows, plan_reads
from node_agent.archive.safe_restore import Removals, take_removals, those_inside
from node_agent.containerd_upper import read_upper_dir
from node_agent.runtime import ChangeKind, PathChange

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and b"/" not in name)
PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)
CHANGES = st.dictionaries(PATHS, st.sampled_from(list(ChangeKind)), max_size=20).map(
    lambda kinds: [PathChange(kind, path) for path, kind in kinds.items()]
)


def is_inside(path: str, folder: str) -> bool:
    """The same, or below it."""
    return path == folder or path.startswith(f"{folder}/")


@given(CHANGES, st.lists(PATHS, max_size=2))
def test_nothing_mounted_is_ever_read(changes: list[PathChange], mounts: list[str]) -> None:
    """Neither by its name nor with a folder above it that is asked for whole."""
    for change, whole in plan_reads(changes, mounts):
        assert not any(is_inside(change.path, mount) for mount in mounts)
        assert not (whole and any(is_inside(mount, change.path) for mount in mounts))


@given(CHANGES)
def test_every_change_is_read_once(changes: list[PathChange]) -> None:
    """By itself, or with the one added folder above it that is asked for whole."""
    reads = plan_reads(changes, [])
    for change in changes:
        with_it = [
            read for read, whole in reads if read == change or (whole and is_inside(change.path, read.path))
        ]
        assert len(with_it) == 1


@given(CHANGES)
def test_folders_come_before_what_is_in_them(changes: list[PathChange]) -> None:
    """tar needs them so, and is done with a folder when it has left it."""
    paths = [change.path.split("/") for change, _ in plan_reads(changes, [])]
    assert paths == sorted(paths)


@given(
    name=NAMES,
    link=NAMES,
    kind=st.sampled_from(
        [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE]
    ),
    data=st.binary(max_size=1200),
    owner=st.integers(0, 2**32 - 1),
    mtime=st.integers(-(2**33), 2**35),
    xattr=st.binary(max_size=200),
)
def test_a_member_is_read_back_as_it_was_written(
    name: bytes, link: bytes, kind: bytes, data: bytes, owner: int, mtime: int, xattr: bytes
) -> None:
    """Any bytes in names and attributes, any owner, times before 1970."""
    info = tarfile.TarInfo("./" + name.decode("utf-8", "surrogateescape"))
    info.type, info.uid, info.gid, info.mtime, info.mode = kind, owner, owner, mtime, 0o6755
    info.linkname = (
        link.decode("utf-8", "surrogateescape") if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    )
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    info.pax_headers = {"SCHILY.xattr.user.a": xattr.decode("utf-8", "surrogateescape")}
    written = b"".join([*write_member(info, iter((data[: info.size],))), END])
    assert len(written) % 512 == 0
    with open_tar(iter((written,))) as tar:
        (found,) = [(one, b"".join(content(tar, one))) for one in members(tar)]
    assert (raw(found[0].name).rstrip(b"/"), found[0].type, raw(found[0].linkname)) == (
        raw(info.name).rstrip(b"/"),
        kind,
        raw(info.linkname),
    )
    assert (found[0].uid, found[0].gid, int(found[0].mtime), found[0].mode) == (owner, owner, mtime, 0o6755)
    assert raw(found[0].pax_headers["SCHILY.xattr.user.a"]) == xattr
    assert found[1] == data[: info.size]


@given(files=st.lists(st.binary(max_size=1500), min_size=1, max_size=4), data=st.data())
def test_a_tar_that_breaks_off_anywhere_is_not_taken_for_a_smaller_one(
    files: list[bytes], data: st.DataObject
) -> None:
    """Also between two members, and in the middle of the end mark."""
    written = tar_of(files)
    cut = data.draw(st.integers(0, len(written) - len(END) + 511))
    with pytest.raises(tarfile.ReadError), open_tar(iter((written[:cut],))) as tar:
        deque(members(tar), maxlen=0)


@given(files=st.lists(st.binary(max_size=1500), min_size=2, max_size=4), data=st.data())
def test_a_damaged_header_is_not_taken_for_the_end(files: list[bytes], data: st.DataObject) -> None:
    """Of any member but the first, which has always been told."""
    written = bytearray(tar_of(files))
    number = data.draw(st.integers(1, len(files) - 1))
    begin = len(tar_of(files[:number])) - len(END)
    written[begin + data.draw(st.integers(0, 147))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(tarfile.ReadError), open_tar(iter((bytes(written),))) as tar:
        deque(members(tar), maxlen=0)


def tar_of(files: list[bytes]) -> bytes:
    """One member for each."""
    pieces = []
    for number, content_ in enumerate(files):
        info = tarfile.TarInfo(f"./{number}")
        info.size = len(content_)
        pieces += [*write_member(info, iter((content_,)))]
    return b"".join([*pieces, END])


@given(st.binary(max_size=40))
def test_names_are_shown_as_the_engine_shows_them(name: bytes) -> None:
    """One replacement character for each byte that is no part of UTF-8; the rest as it is."""
    shown = as_json_shows(name)
    strange = sum(char == "\ufffd" for char in shown) - name.count("\ufffd".encode())
    assert len(shown.encode()) == len(name) + 2 * strange


def test_a_member_that_fits_needs_no_extended_header() -> None:
    """One block: what any tar of the last fifty years reads."""
    assert len(header(tarfile.TarInfo("./a"))) == 512


def test_marks_become_removals_and_times_stay(tmp_path: Path) -> None:
    """Whiteouts go out of the tree, opaque folders are removed before they are added anew."""
    (tmp_path / "etc" / "new").mkdir(parents=True)
    os.mknod(tmp_path / "etc" / "gone", 0o020000, os.makedev(0, 0))
    os.setxattr(tmp_path / "etc" / "new", "trusted.overlay.opaque", b"y")
    os.utime(tmp_path / "etc", ns=(5, 7))
    removals = take_removals(tmp_path, ())
    assert sorted(removals.paths) == [b"etc/gone", b"etc/new"]
    assert os.listdir(tmp_path / "etc") == ["new"]  # noqa: PTH208
    assert (tmp_path / "etc").stat().st_mtime_ns == 7


def test_nothing_is_removed_at_or_above_a_mount(tmp_path: Path) -> None:
    """The workspace is mounted while a container is put in order: no mark may lead to it."""
    (tmp_path / "run" / "codepods").mkdir(parents=True)
    os.setxattr(tmp_path / "run", "trusted.overlay.opaque", b"y")
    os.mknod(tmp_path / "workspaces", 0o020000, os.makedev(0, 0))
    removals = take_removals(tmp_path, ("/workspaces", "/run/codepods"))
    assert removals.paths == ()
    assert os.listdir(tmp_path / "run") == []  # noqa: PTH208


def test_nothing_is_removed_through_a_link() -> None:
    """Where the image has a link above it, which may lead into the workspace, it is left alone."""
    removals = Removals((b"real/gone", b"link/x/gone", b"gone"))
    folders = {"/real"}
    assert those_inside(removals, folders.__contains__).paths == (b"real/gone", b"gone")


def test_what_removing_needs_is_removed_last() -> None:
    """Somebody may have deleted rm itself."""
    removals = Removals((b"bin/rm", b"home/x", b"usr/lib/libc.so", b"usr/share/doc"))
    assert removals.as_file().split(b"\0")[:2] == [b"/home/x", b"/usr/share/doc"]


def test_the_upper_directory_is_read_from_containerds_mount_command() -> None:
    """As its documentation shows it; on anything else the safe way is taken."""
    folder = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/fs"
    line = f"mount -t overlay overlay /nowhere -o index=off,workdir=/w,upperdir={folder},lowerdir=/a:/b"
    assert read_upper_dir(line) == folder
    assert read_upper_dir("mount -t bind /x /nowhere -o ro,rbind") is None
