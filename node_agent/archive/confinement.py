"""A command line that runs a program where only one directory can be written.

The tars we unpack are strangers' data, and unpacking needs root. docs/decisions/0002-confined-unpacking.md
says what was weighed. Needs util-linux (unshare, mount, pivot_root, setpriv) and Linux 5.8.
"""

from collections.abc import Sequence
from pathlib import Path

# Where the program finds the directory.
TREE = Path("/tree")

# What unpacking needs: owners, modes, device nodes, file capabilities, trusted.* attributes (sys_admin).
_CAPABILITIES = "-all,+chown,+dac_override,+fowner,+fsetid,+mknod,+setfcap,+sys_admin"

# The new root is built over /tmp in a mount namespace of its own: nobody else sees it, and it goes with the
# process. The directory is reached through the working directory, for it may lie below /tmp itself.
_SETUP = f"""
set -eu
cd -- "$1"
shift
mount -c -t tmpfs -o size=64k,mode=0755,nosuid,nodev,noexec tmpfs /tmp
mkdir /tmp/usr /tmp/proc /tmp{TREE} /tmp/old
mount -c -o bind,nosuid,nodev,noexec . /tmp{TREE}
mount -c -o bind,ro,nosuid,nodev /usr /tmp/usr
links=
for name in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$name" ]; then
    links="$links usr/$name"
  elif [ -d "/$name" ]; then
    mkdir "/tmp/$name"
    mount -c -o bind,ro,nosuid,nodev "/$name" "/tmp/$name"
  fi
done
[ -z "$links" ] || ln -s $links /tmp
mount -c -t proc -o ro,nosuid,nodev,noexec,subset=pid proc /tmp/proc
cd /tmp
pivot_root . old
umount -l /old
cd {TREE}
exec setpriv --no-new-privs --inh-caps=-all --bounding-set={_CAPABILITIES} -- "$@"
"""

_UNSHARE = (
    "unshare",
    "--mount",
    "--net",
    "--pid",
    "--ipc",
    "--uts",
    "--fork",
    "--kill-child",
    "--propagation=private",
)


def confined_argv(directory: Path, command: Sequence[str]) -> list[str]:
    """Run the command with the directory as `TREE`, `/usr` read-only, no network, and nothing else."""
    return [*_UNSHARE, "--", "/bin/sh", "-c", _SETUP, "confine", str(directory), *command]
