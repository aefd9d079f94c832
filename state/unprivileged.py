"""The system user that the embedded PostgreSQL runs as when we are root: PostgreSQL refuses to be root."""

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

USER = "codepods"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class NoUserError(Exception):
    """The system user could not be made. The message says what to do."""


def ensure_user() -> pwd.struct_passwd | None:
    """The system user, made if it is missing; None when we are not root and run things as ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        _add_user()
        return pwd.getpwnam(USER)


def run_as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Arguments for `subprocess` that run a program as the user."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def give(path: Path, user: pwd.struct_passwd | None) -> None:
    """Make the user the owner of a file or directory."""
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def barrier(path: Path) -> Path | None:
    """The directory above `path` that keeps other users of the system out, if there is one."""
    for parent in reversed(path.absolute().parents):
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None


def _add_user() -> None:
    useradd = shutil.which("useradd", path=_PATH)
    if useradd is None:
        raise NoUserError(f"there is no useradd to make the system user {USER} with: make it by hand")
    made = subprocess.run(
        [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", USER],
        capture_output=True,
        text=True,
        check=False,
    )
    user_exists = 9  # useradd(8): somebody was faster
    if made.returncode not in (0, user_exists):
        raise NoUserError(f"useradd could not make the system user {USER}: {made.stderr.strip()}")
