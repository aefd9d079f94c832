"""Tells nginx which ports are open to others: one file each, made level with the database again and again.

A file is `<pod>.<port>` and holds claims sealed as for the other tokens, of scope `link:<port>` or
`public:<port>`: nginx opens it when somebody without a cookie of the pod comes, and asks nobody. What is not
wanted any more is removed; a file that was made with what is still so is left as it is.
"""

import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import structlog

from api.access_token import AccessClaims, Keyring, KeyringError, seal
from api.port_links import is_allowed
from api.replacing import replace_file
from api.settings import ApiSettings
from state import pod_ports
from state.database import Database, DatabaseUnavailable
from state.model import Visibility
from state.pod_ports import PodPort
from state.pods import PodAccess

LEVEL_EVERY_S = 2.0
# Longer than any outage of the control plane that open applications should outlive.
FILE_LIFETIME_S = 24 * 3600
_NAME = re.compile(r"p-[a-z2-7]{12}\.[1-9][0-9]{0,4}")
_JOIN_S = 10.0

log = structlog.get_logger()

Reachable = Iterable[tuple[PodPort, PodAccess]]


class PortFiles:
    """The files in one directory. Only one thread may use it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[str, tuple[str, AccessClaims]] = {}

    def level(self, wanted: Reachable, keyring: Keyring, now_s: int) -> None:
        """Make the files say what is wanted. Raises `OSError`."""
        names = set()
        for shared, access in wanted:
            name = f"{shared.pod_id}.{shared.port}"
            names.add(name)
            self._write(name, _claims(shared, access, now_s + FILE_LIFETIME_S), keyring, now_s)
        for name in self._present() - names:
            (self._directory / name).unlink(missing_ok=True)
            self._written.pop(name, None)

    def _present(self) -> set[str]:
        return {path.name for path in self._directory.iterdir() if _NAME.fullmatch(path.name)}

    def _write(self, name: str, claims: AccessClaims, keyring: Keyring, now_s: int) -> None:
        """Unless it was written with the same, under the key that seals now, and is good for long yet."""
        key, before = self._written.get(name, ("", None))
        if before is not None and key == keyring.current and (self._directory / name).exists():
            fresh = before.expires_at - now_s > FILE_LIFETIME_S // 2
            if fresh and _same(before, claims):
                return
        # It is sealed, and the directory is for nginx's workers to enter.
        replace_file(self._directory / name, seal(claims, keyring, "port"), mode=0o644)
        self._written[name] = (keyring.current, claims)


class PortFilesThread:
    """Keeps the files level until it is stopped. What goes wrong is logged, and tried again."""

    def __init__(self, db: Database, settings: ApiSettings, directory: Path) -> None:
        self._db = db
        self._settings = settings
        self._files = PortFiles(directory)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="port-files", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; takes at most `_JOIN_S`. The files stay: nginx goes on without us."""
        self._stopping.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._level()
            except (OSError, KeyringError, DatabaseUnavailable) as error:
                log.warning("port files are not level", error=str(error))
            self._stopping.wait(LEVEL_EVERY_S)

    def _level(self) -> None:
        found = pod_ports.reachable(self._db)
        allowed = [pair for pair in found if is_allowed(self._settings, pair[0].visibility)]
        self._files.level(allowed, Keyring.load(self._settings.keyring), int(time.time()))


def _claims(shared: PodPort, access: PodAccess, expires_at: int) -> AccessClaims:
    return AccessClaims(
        pod=shared.pod_id,
        user=access.user_id,
        epoch=access.epoch,
        upstream=access.upstream,
        secret=access.session_secret,
        expires_at=expires_at,
        session_id=shared.link_id if shared.visibility is Visibility.LINK else "public",
        scope=f"{shared.visibility}:{shared.port}",
    )


def _same(one: AccessClaims, other: AccessClaims) -> bool:
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("epoch", "upstream", "secret", "session_id", "scope", "user")
    )
