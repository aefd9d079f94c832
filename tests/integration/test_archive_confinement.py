"""Unpacking strangers' tars: whatever is in them, nothing outside of the target changes or is seen."""

import hashlib
import io
import socket
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from node_agent.archive.confinement import TREE, confined_argv
from node_agent.archive.errors import RestoreFailed
from node_agent.archive.manifest import BlobRef
from node_agent.archive.restore import restore_tree
from node_agent.directory_store import DirectoryStore
from tests.support.trees import differences, snapshot

EVIL = b"evil"


@dataclass(frozen=True)
class Place:
    """A target to unpack into, beside somebody's files that must stay as they are."""

    target: Path
    victim: Path
    store: DirectoryStore


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """One folder with a target and a victim in it."""
    for name in ("target", "victim"):
        (tmp_path / "home" / name).mkdir(parents=True)
    (tmp_path / "home" / "victim" / "secret").write_bytes(b"original")
    return Place(tmp_path / "home/target", tmp_path / "home/victim", DirectoryStore(tmp_path / "store"))


Member = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> Member:
    """One member; files hold `evil`."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.pax_headers = kind, link, 0o755, pax
    content = EVIL if kind == tarfile.REGTYPE else b""
    info.size = len(content)
    if kind in {tarfile.CHRTYPE, tarfile.BLKTYPE}:
        info.devmajor, info.devminor = 1, 5
    return info, content


def tar_of(members: list[Member]) -> bytes:
    """A tar with exactly these members, whatever they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


SYM, HARD, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
HOSTILE: dict[str, Callable[[Path], list[Member]]] = {
    "parent path": lambda victim: [entry("../victim/evil")],
    "parent path, overwriting": lambda victim: [entry("../victim/secret")],
    "deep parent path": lambda victim: [entry("a/b/../../../victim/secret")],
    "absolute path": lambda victim: [entry(f"{victim}/secret")],
    "path from a pax header": lambda victim: [entry("fine", path=f"{victim}/secret")],
    "through an absolute symlink": lambda victim: [entry("l", SYM, str(victim)), entry("l/secret")],
    "through a relative symlink": lambda victim: [entry("l", SYM, "../victim"), entry("l/secret")],
    "through a chain of symlinks": lambda victim: [
        entry("up", SYM, ".."),
        entry("l", SYM, "up/victim"),
        entry("l/secret"),
    ],
    "a symlink in place of a folder": lambda victim: [
        entry("d", DIR),
        entry("d/x"),
        entry("d", SYM, str(victim)),
        entry("d/secret"),
    ],
    "over a symlink to a file": lambda victim: [entry("s", SYM, f"{victim}/secret"), entry("s")],
    "hard link outside, then written": lambda victim: [entry("h", HARD, "../victim/secret"), entry("h")],
    "absolute hard link, then written": lambda victim: [entry("h", HARD, f"{victim}/secret"), entry("h")],
    "hard link through a symlink": lambda victim: [
        entry("l", SYM, str(victim)),
        entry("h", HARD, "l/secret"),
        entry("h"),
    ],
    "a folder over the root": lambda victim: [entry("/", DIR), entry("..", DIR), entry("../victim", DIR)],
    "system files": lambda victim: [entry("/usr/bin/tar"), entry("../usr/bin/tar"), entry("/proc/1/oom_adj")],
    "a device, then written": lambda victim: [entry("zero", tarfile.CHRTYPE), entry("zero")],
}


@pytest.fixture(params=sorted(HOSTILE))
def hostile(request: pytest.FixtureRequest, place: Place) -> bytes:
    """Each hostile tar."""
    return tar_of(HOSTILE[request.param](place.victim))


def test_a_hostile_tar_changes_nothing_outside(place: Place, hostile: bytes) -> None:
    """Refused or unpacked harmlessly below the target: either way the victim's tree is as it was."""
    packed = zstandard.compress(hostile)
    with place.store.open_writer("blob") as writer:
        writer.write(packed)
        writer.commit()
    blob = BlobRef(
        key="blob",
        size_bytes=len(packed),
        sha256=hashlib.sha256(packed).hexdigest(),
        tar_bytes=len(hostile),
    )
    before, home = snapshot(place.victim), sorted(place.victim.parent.iterdir())
    with suppress(RestoreFailed):
        restore_tree(place.store, blob, place.target)
    assert differences(before, snapshot(place.victim)) == []
    assert sorted(place.victim.parent.iterdir()) == home


def test_confinement_holds_without_tars_own_care(place: Place, hostile: bytes) -> None:
    """With tar told to trust names and links, the same tars still reach nothing: it is not there."""
    unpack = ["tar", "--extract", "--absolute-names", "--file=-", f"--directory={TREE}"]
    before, tar_binary = snapshot(place.victim), Path("/usr/bin/tar").read_bytes()
    subprocess.run(
        confined_argv(place.target, unpack), input=hostile, capture_output=True, check=False, timeout=60
    )
    assert differences(before, snapshot(place.victim)) == []
    assert Path("/usr/bin/tar").read_bytes() == tar_binary


def confined(target: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where tar runs."""
    argv = confined_argv(target, ["/bin/bash", "-c", script])
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_only_the_tree_and_the_system_programs_are_there(place: Place) -> None:
    """No /etc, /var, /home, /dev, /run: nothing to read, nothing to link to."""
    seen = confined(place.target, "cd /; echo *").stdout.split()
    assert (
        {"tree", "usr", "proc"}
        <= set(seen)
        <= {"tree", "usr", "proc", "old", "bin", "sbin", "lib", "lib32"}
        | {
            "lib64",
            "libx32",
        }
    )
    assert confined(place.target, "echo /old/*; cat /proc/1/environ | tr '\\0' '\\n'").stdout.startswith(
        "/old/*"
    )


def test_the_system_programs_cannot_be_changed(place: Place) -> None:
    """/usr is read-only, and /proc is too and holds no settings of the kernel."""
    outcome = confined(place.target, "echo x > /usr/evil; echo x > /proc/self/oom_score_adj; ls /proc/sys")
    assert outcome.returncode != 0
    assert outcome.stderr.count("Read-only file system") == 2
    assert not Path("/usr/evil").exists()


def test_a_device_can_be_made_but_not_opened(place: Place) -> None:
    """Device nodes are part of a tree; in there they lead nowhere."""
    outcome = confined(place.target, "mknod zero c 1 5 && head -c1 zero")
    assert "Permission denied" in outcome.stderr
    assert (place.target / "zero").is_char_device()


def test_there_is_no_network(place: Place) -> None:
    """Not even the host's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert confined(place.target, f"echo > /dev/tcp/127.0.0.1/{port}").returncode != 0


def test_no_process_outside_can_be_seen(place: Place) -> None:
    """A process table of its own."""
    assert confined(place.target, "cd /proc; echo [0-9]*").stdout.split() == ["1"]


def test_the_host_keeps_no_mount(place: Place) -> None:
    """What was mounted for the confinement is gone with it, and was never seen outside."""
    before = Path("/proc/self/mountinfo").read_text()
    confined(place.target, "true")
    assert Path("/proc/self/mountinfo").read_text() == before
