"""Every file of a running pod, as it sees them itself: what must be the same after it was away."""

import json
import subprocess
from typing import Any

# Runs inside the pod as root, with the pod's own python3.
_WALK = r"""
import hashlib, json, os, stat, sys
found = {}
def digest(path):
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            whole.update(chunk)
    return whole.hexdigest()
for top in sys.argv[1:]:
    for directory, names, files in os.walk(top):
        for name in [*names, *files, "."]:
            path = os.path.normpath(os.path.join(directory, name))
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            content = None
            if kind == stat.S_IFREG:
                content = digest(path)
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            if kind == stat.S_IFSOCK:
                continue
            size = info.st_size if kind != stat.S_IFDIR else None
            xattrs = {n: os.getxattr(path, n, follow_symlinks=False).hex()
                      for n in os.listxattr(path, follow_symlinks=False)}
            found[os.fsencode(path).decode("latin-1")] = [
                info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, size, content, xattrs]
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


def pod_tree(container_id: str, tops: tuple[str, ...] = TOPS) -> dict[str, Any]:
    """Path → [mode, uid, gid, mtime in ns, size, digest or link target, xattrs] of all below `tops`."""
    command = ["docker", "exec", "-i", "-u", "root", container_id, "python3", "-c", _WALK, *tops]
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
