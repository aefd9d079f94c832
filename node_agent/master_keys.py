"""Master keys: they wrap data keys and nothing else. In a file of the node; `kms_keys` has them in a KMS."""

import base64
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from node_agent.sealing import SealBroken
from node_agent.store import StoreAccessDenied

FILE_BYTES_MAX = 100_000
MASTER_KEY_BYTES = 32
# What the ids of a KMS's keys begin with; no id in a file has a colon.
KMS_PREFIX = "kms:"
_NONCE_BYTES = 12
_ID = re.compile(r"[A-Za-z0-9._-]{1,60}")


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key that only the master key of this id can open."""

    master_id: str
    data: bytes


class MasterKeys(Protocol):
    """Raises StoreError only. Safe to use from several threads."""

    @property
    def current_id(self) -> str:
        """The master key that new data keys are wrapped with."""
        ...

    def wrap(self, secret: bytes, context: str) -> Wrapped:
        """Under the current master key; `context` must be the same at unwrapping."""
        ...

    def unwrap(self, wrapped: Wrapped, context: str) -> bytes:
        """Raises StoreAccessDenied without that master key, SealBroken for what it has not wrapped."""
        ...


class FileMasterKeys(MasterKeys):
    """A JSON file: `{"current": id, "keys": {id: base64 of 32 random bytes}}`.

    Raises ValueError for a file that is not so, OSError for one that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._current, self._keys = _parse(file.read(FILE_BYTES_MAX), path)
        self._path = path

    @property
    def current_id(self) -> str:
        """See MasterKeys."""
        return self._current

    def wrap(self, secret: bytes, context: str) -> Wrapped:
        """See MasterKeys."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = AESGCM(self._keys[self._current])
        return Wrapped(self._current, nonce + cipher.encrypt(nonce, secret, context.encode()))

    def unwrap(self, wrapped: Wrapped, context: str) -> bytes:
        """See MasterKeys."""
        master = self._keys.get(wrapped.master_id)
        if master is None:
            raise StoreAccessDenied(
                f"a data key is wrapped with master key {wrapped.master_id!r}, which is not in {self._path}: "
                "put it back there, as it was, beside the current one"
            )
        nonce, data = wrapped.data[:_NONCE_BYTES], wrapped.data[_NONCE_BYTES:]
        try:
            return AESGCM(master).decrypt(nonce, data, context.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"a data key was changed in the store ({context}), it was not used") from error


class TwoMasters(MasterKeys):
    """A KMS's keys for all that is new, and a file's for what was wrapped before."""

    def __init__(self, current: MasterKeys, older: MasterKeys) -> None:
        self._current = current
        self._older = older

    @property
    def current_id(self) -> str:
        """See MasterKeys."""
        return self._current.current_id

    def wrap(self, secret: bytes, context: str) -> Wrapped:
        """See MasterKeys."""
        return self._current.wrap(secret, context)

    def unwrap(self, wrapped: Wrapped, context: str) -> bytes:
        """See MasterKeys."""
        of_kms = wrapped.master_id.startswith(KMS_PREFIX)
        return (self._current if of_kms else self._older).unwrap(wrapped, context)


def new_key_file(path: Path, key_id: str) -> None:
    """Make a file with one new master key, or add one to it and make it the current.

    Raises ValueError for an id that is there already.
    """
    content: dict[str, Any] = {"current": key_id, "keys": {}}
    if path.exists():
        _, keys = _parse(path.read_bytes(), path)
        content["keys"] = {name: base64.b64encode(key).decode() for name, key in keys.items()}
    if key_id in content["keys"] or not _ID.fullmatch(key_id):
        raise ValueError(
            f"{key_id!r} is no new id for a master key: letters, digits, dots and dashes, unused"
        )
    content["keys"][key_id] = base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode()
    draft = path.with_name(f".{path.name}.new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(content, indent=2) + "\n")
    draft.replace(path)


def _parse(data: bytes, path: Path) -> tuple[str, dict[str, bytes]]:
    try:
        content = json.loads(data)
        keys = {str(name): base64.b64decode(key, validate=True) for name, key in content["keys"].items()}
        current = str(content["current"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} is no file of master keys: {{"current": id, "keys": {{id: base64 of 32 bytes}}}} is one'
        ) from error
    if current not in keys or any(len(key) != MASTER_KEY_BYTES for key in keys.values()):
        raise ValueError(f"{path}: the current key must be one of the keys, and each must have 32 bytes")
    return current, keys
