"""The two files that nginx decides by: the key ring, rotated as it ages, and what was revoked.

Both are made level with the clock and the database again and again, so several of these programs may do it
beside each other, and a revocation that one of them was told of comes to all.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from api.access_token import Keyring
from api.replacing import replace_file
from api.settings import ApiSettings
from state import revocations
from state.database import Database
from state.revoked import REVOKED_FILE, Revoked

log = structlog.get_logger()


def ensure_revoked(keyring: Path) -> None:
    """A file that revokes nothing, where there is none: without one nobody is let in. Raises `OSError`."""
    if not keyring.with_name(REVOKED_FILE).exists():
        write_revoked(keyring, Revoked())


def write_revoked(keyring: Path, revoked: Revoked) -> None:
    """Replace the file beside this key ring in one step, if it says something else. Raises `OSError`."""
    target, text = keyring.with_name(REVOKED_FILE), revoked.text()
    if target.exists() and target.read_text() == text:
        return
    # Who was revoked is not for everybody; nginx's workers are in the ring's group.
    replace_file(target, text, mode=0o640, gid=keyring.stat().st_gid)


def level_keyring(path: Path, revoked: Revoked, now_s: int, period_s: int) -> Keyring:
    """Take revoked keys out of the ring, and have a fresh key seal when the current one is old enough.

    Raises `KeyringError`, `OSError`.
    """
    with _alone(path):
        before = ring = Keyring.load(path)
        for kid in revoked.key.keys() & ring.keys.keys():
            ring = ring.without(kid)
        if now_s - ring.current_since >= period_s:
            ring = ring.rotated()
        if ring != before:
            ring.save(path)
            log.info("keys changed", current=ring.current, accepted=len(ring.keys))
    return ring


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Whoever changes the ring has read what it changes."""
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def level(db: Database, settings: ApiSettings) -> None:
    """Make both files say what is so now. Raises `KeyringError`, `OSError`, `DatabaseUnavailable`."""
    revoked = revocations.revoked(db)
    level_keyring(settings.keyring, revoked, int(time.time()), settings.key_rotation_h * 3600)
    write_revoked(settings.keyring, revoked)
