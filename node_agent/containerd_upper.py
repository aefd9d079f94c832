"""Where containerd keeps a container's changes, for engines whose image store is containerd's (Docker >= 29).

Written from documentation, never run: the engines here are older. What it says is believed only after the
probe of `ways` has seen a file there that was written through the engine; else the safe way is taken.
The engine names the snapshot by the container's id, in containerd's namespace `moby`.
"""

import re
import shutil
import subprocess

_UPPER_DIR = re.compile(r"(?:^|[\s,])upperdir=([^,\s]+)")
_TIMEOUT_S = 10


def snapshot_upper_dir(container_id: str) -> str | None:
    """As `ctr` says it; None where there is no `ctr`, or no such snapshot."""
    if shutil.which("ctr") is None:
        return None
    asked = ("ctr", "--namespace", "moby", "snapshots", "mounts", "/nowhere", container_id)
    try:
        ran = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return read_upper_dir(ran.stdout) if ran.returncode == 0 else None


def read_upper_dir(mount_command: str) -> str | None:
    """From the mount command that `ctr snapshots mounts` prints. Pure."""
    found = _UPPER_DIR.search(mount_command)
    return found.group(1) if found else None
