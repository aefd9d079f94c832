"""Files of which not every form of an export can carry all, made in a running pod, and looked at again."""

import os
import stat
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.support.trees import Snapshot, snapshot

PLACES = (b"etc/odd", b"workspaces/odd")
HOLE_BYTES = 3_000_000
NAMES = {b".wh.mark": b"_.wh.mark", b"_.wh.mark": b"__.wh.mark"}
# As linux/posix_acl_xattr.h has `u::rw-,u:1234:r--,g::r--,m::r--,o::---`.
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, of)
    for tag, bits, of in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 1234),
        (4, 4, 0xFFFFFFFF),
        (16, 4, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)
# cap_net_raw+ep, as linux/capability.h has it (revision 2).
_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


def root_of(container_id: str) -> bytes:
    """Of a running container, as its processes see it."""
    argv = ["docker", "inspect", "--format", "{{.State.Pid}}", container_id]
    pid = subprocess.run(argv, capture_output=True, check=True, text=True).stdout.strip()
    return f"/proc/{pid}/root/".encode()


def make_odd_files(container_id: str) -> None:
    """In the pod and among its user's files."""
    for place in PLACES:
        _make(Path(os.fsdecode(root_of(container_id) + place)))


def _make(odd: Path) -> None:
    odd.mkdir()
    names = [
        "attribute",
        "acl",
        "capable",
        "setuid",
        "owned",
        "linked",
        "exact",
        "old",
        "late",
        "new\nline\udcff",
    ]
    for name in [*names, *map(os.fsdecode, NAMES)]:
        (odd / name).write_text(name.encode(errors="surrogateescape").hex())
    os.setxattr(odd / "attribute", "user.mark", b"\0\xff")
    os.setxattr(odd / "acl", "system.posix_acl_access", _ACL)
    os.setxattr(odd / "capable", "security.capability", _CAPABILITY)
    os.chown(odd / "owned", 1234, 5678)
    (odd / "setuid").chmod(0o4711)
    os.link(odd / "linked", odd / "second")
    (odd / "soft").symlink_to("linked")
    os.mkfifo(odd / "fifo")
    os.mknod(odd / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with (odd / "holes").open("wb") as file:
        file.truncate(HOLE_BYTES)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    os.utime(odd / "exact", ns=(1, 1_700_000_000_123_456_789))
    os.utime(odd / "old", ns=(1, -286_000_000_000_000_000))
    os.utime(odd / "late", ns=(1, 4_200_000_000_000_000_000))
    os.utime(odd, ns=(1, 1_700_000_001_987_654_321))
    os.sync()


# What an export says of them, of each place.
TOLD = (
    "names that begin with .wh., written with an underscore in front",
    "holes in files, written out",
    "times before 1970, which are in it, and become 1970 in docker load",
    "extended attributes and ACLs, which are in it, and are left out by docker save and commit",
)


def as_loaded(before: Snapshot) -> Snapshot:
    """How they are in a container of an image that `docker load` (20.10) has read: docs/archive-format.md."""
    found = {}
    for name, entry in before.items():
        above, _, base = name.rpartition(b"/")
        loaded = replace(entry, sparse=False, mtime_ns=max(0, entry.mtime_ns))
        found[above + b"/" + NAMES.get(base, base)] = loaded
    return found


def as_imported(before: Snapshot) -> Snapshot:
    """How they are in a pod that `podctl import` has made of the image."""
    return {name: replace(entry, sparse=False) for name, entry in before.items()}


def odd_files(container_id: str) -> Snapshot:
    """What a running container has of them."""
    root = root_of(container_id)
    found: Snapshot = {}
    for place in PLACES:
        for name, entry in snapshot(Path(os.fsdecode(root + place))).items():
            found[place + b"/" + name] = replace(
                entry, links=tuple(place + b"/" + link for link in entry.links)
            )
    return found
