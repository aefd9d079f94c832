"""Every file of a running pod, as it sees them itself: what must be the same after it was away."""

import json
import subprocess
from typing import Any

# Runs inside the pod as root, with the pod's own python3.
_WALK = r"""
import hashlib, json, os, stat, sys
found, first_names = {}, {}
chosen = json.loads(sys.argv[1])
def digest(path):
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            whole.update(chunk)
    return whole.hexdigest()
for top in chosen["tops"]:
    for directory, names, files in os.walk(top):
        names.sort()
        files.sort()
        for name in [*names, *files, "."]:
            path = os.path.normpath(os.path.join(directory, name))
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            content = None
            if kind == stat.S_IFREG:
                content = None if path.startswith(tuple(chosen["unread"])) else digest(path)
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            if kind == stat.S_IFSOCK:
                continue
            size = info.st_size if kind != stat.S_IFDIR else None
            xattrs = {n: os.getxattr(path, n, follow_symlinks=False).hex()
                      for n in os.listxattr(path, follow_symlinks=False)}
            name = os.fsencode(path).decode("latin-1")
            facts = [info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, size, content, xattrs]
            if chosen["shapes"] and kind == stat.S_IFREG:
                facts.append(first_names.setdefault((info.st_dev, info.st_ino), name))
                facts.append(info.st_size >= 1 << 20 and info.st_blocks * 512 < info.st_size / 2)
            found[name] = facts
json.dump(found, sys.stdout)
"""

TOPS = (
    "/workspaces",
    "/home",
    "/etc",
    "/usr/local",
    "/usr/bin",
    "/usr/share/doc",
    "/opt/kept",
    "/root",
    "/var/lib",
)

# Written by the engine or by code-server's own start, not by the user.
_OTHERS = (
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/home/coder/.local/share/code-server",
    "/home/coder/.config/code-server",
    "/home/coder/.cache",
)


def pod_tree(
    container_id: str, tops: tuple[str, ...] = TOPS, *, unread: tuple[str, ...] = (), shapes: bool = False
) -> dict[str, Any]:
    """Path → [mode, uid, gid, mtime in ns, size, digest or link target, xattrs] of all below `tops`.

    Of what is below `unread` there is no digest. With `shapes` a file has the first name of the same one too,
    and whether most of it is holes.
    """
    chosen = json.dumps({"tops": tops, "unread": unread, "shapes": shapes})
    command = ["docker", "exec", "-i", "-u", "root", container_id, "python3", "-c", _WALK, chosen]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    tree: dict[str, Any] = json.loads(result.stdout)
    return {path: facts for path, facts in tree.items() if not path.startswith(_OTHERS)}


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not the same in two trees, by path."""
    return {
        path: (before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }
