"""Tells nginx which ports are open to others: one file each, made level with the database again and again.

A file is `<pod>.<port>` and holds claims sealed as for the other tokens, of scope `link:<port>` or
`public:<port>`: nginx opens it when somebody without a cookie of the pod comes, and asks nobody. What is not
wanted any more is removed; a file that was made with what is still so is left as it is.
"""

import re
import time
from collections.abc import Iterable
from pathlib import Path

from api.access_token import AccessClaims, Keyring, seal
from api.port_links import is_allowed
from api.replacing import replace_file
from api.settings import ApiSettings
from state import pod_ports
from state.database import Database
from state.model import Visibility
from state.pod_ports import PodPort
from state.pods import PodAccess

# Longer than any outage of the control plane that open applications should outlive.
FILE_LIFETIME_S = 24 * 3600
_NAME = re.compile(r"p-[a-z2-7]{12}\.[1-9][0-9]{0,4}")

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


def level(files: PortFiles, db: Database, settings: ApiSettings) -> None:
    """Make the files say what is so now. Raises `KeyringError`, `OSError`, `DatabaseUnavailable`."""
    allowed = [pair for pair in pod_ports.reachable(db) if is_allowed(settings, pair[0].visibility)]
    files.level(allowed, Keyring.load(settings.keyring), int(time.time()))


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
