"""Data keys: one for each user, kept in the store itself, wrapped by a master key.

    keys/<scope>/<data key id>   {"format": 1, "master": id, "wrapped": base64}

Each object names its data key, and all who may open it find the key here. Wrapping anew under another master
key replaces these small objects only. Whoever removes a user's keys makes everything of theirs unreadable.
"""

import base64
import hashlib
import json
import secrets
import threading
from collections import OrderedDict
from typing import TypeVar

from node_agent.master_keys import MasterKeys, Wrapped
from node_agent.sealing import DATA_KEY_BYTES, ID_BYTES, DataKey, SealBroken
from node_agent.store import LIST_LIMIT_MAX, Store, StoreNotFound

KEYS_PREFIX = "keys/"
KEY_OBJECT_BYTES_MAX = 20_000
FORMAT = 1
K = TypeVar("K")
# Opened keys that are remembered, so that not each object costs a request more.
REMEMBERED_MAX = 10_000


class DataKeys:
    """Safe to use from several threads. Raises StoreError only."""

    def __init__(self, store: Store, masters: MasterKeys) -> None:
        self._store = store
        self._masters = masters
        self._lock = threading.Lock()
        self._opened: OrderedDict[tuple[bytes, bytes], DataKey] = OrderedDict()
        self._of_scope: OrderedDict[bytes, DataKey] = OrderedDict()

    def for_writing(self, scope: bytes) -> DataKey:
        """The scope's key; made if there is none. Of several made at one moment all take the first."""
        with self._lock:
            known = self._of_scope.get(scope)
        if known is not None:
            return known
        names = self._names(scope)
        if not names:
            self._make(scope)
            names = self._names(scope)
        key = self.open(scope, bytes.fromhex(names[0].rpartition("/")[2]))
        with self._lock:
            _remember(self._of_scope, scope, key)
        return key

    def open(self, scope: bytes, key_id: bytes) -> DataKey:
        """The key of this name. Raises SealBroken if it is not there or was changed."""
        with self._lock:
            known = self._opened.get((scope, key_id))
        if known is not None:
            return known
        name = _name(scope, key_id)
        secret = self._masters.unwrap(self._read(name), name)
        if len(secret) != DATA_KEY_BYTES:
            raise SealBroken(f"the data key {name} has another length, it was not used")
        key = DataKey(scope, key_id, secret)
        with self._lock:
            _remember(self._opened, (scope, key_id), key)
        return key

    def rewrap(self) -> tuple[int, int]:
        """Wrap all keys under the current master key: how many were, and how many there are.

        Safe to repeat and to cut anywhere: each is replaced in one step, by the same key.
        """
        done, names = 0, self._all_names()
        for name in names:
            wrapped = self._read(name)
            if wrapped.master_id != self._masters.current_id:
                secret = self._masters.unwrap(wrapped, name)
                again = _to_bytes(self._masters.wrap(secret, name))
                self._store.put_manifest(name, again, only_if_absent=False)
                done += 1
        return done, len(names)

    def masters_in_use(self) -> dict[str, int]:
        """How many data keys each master key still wraps: one that wraps none may go."""
        counted: dict[str, int] = {}
        for name in self._all_names():
            master_id = self._read(name).master_id
            counted[master_id] = counted.get(master_id, 0) + 1
        return counted

    def _make(self, scope: bytes) -> None:
        name = _name(scope, secrets.token_bytes(ID_BYTES))
        wrapped = self._masters.wrap(secrets.token_bytes(DATA_KEY_BYTES), name)
        self._store.put_manifest(name, _to_bytes(wrapped))

    def _names(self, scope: bytes) -> tuple[str, ...]:
        return self._store.list(f"{KEYS_PREFIX}{scope.hex()}/", 1)

    def _all_names(self) -> tuple[str, ...]:
        found: tuple[str, ...] = ()
        limit = LIST_LIMIT_MAX
        while len(found := self._store.list(KEYS_PREFIX, limit)) == limit:
            limit *= 2
        return found

    def _read(self, name: str) -> Wrapped:
        try:
            content = json.loads(self._store.get(name, KEY_OBJECT_BYTES_MAX))
            if content["format"] != FORMAT:
                raise SealBroken(
                    f"the data key {name} has format {content['format']}; this one reads {FORMAT}"
                )
            return Wrapped(str(content["master"]), base64.b64decode(content["wrapped"], validate=True))
        except StoreNotFound as error:
            raise SealBroken(
                f"the data key {name} is not in the store: what it sealed cannot be opened"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise SealBroken(f"the data key {name} was changed in the store, it was not used") from error


def scope_of(user_id: str) -> bytes:
    """Whose data key it is, without saying who; the empty id is for what belongs to no user."""
    return hashlib.sha256(b"codepods scope 1\0" + user_id.encode()).digest()[:ID_BYTES]


def _name(scope: bytes, key_id: bytes) -> str:
    return f"{KEYS_PREFIX}{scope.hex()}/{key_id.hex()}"


def _to_bytes(wrapped: Wrapped) -> bytes:
    content = {
        "format": FORMAT,
        "master": wrapped.master_id,
        "wrapped": base64.b64encode(wrapped.data).decode(),
    }
    return json.dumps(content, sort_keys=True).encode() + b"\n"


def _remember(kept: OrderedDict[K, DataKey], name: K, value: DataKey) -> None:
    kept[name] = value
    if len(kept) > REMEMBERED_MAX:
        kept.popitem(last=False)
