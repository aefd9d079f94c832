"""A store in which time passes at once: for servers whose clock cannot be set."""

from dataclasses import replace
from datetime import datetime, timedelta

from node_agent.store import LIST_LIMIT_MAX, Store, StoredEntry
from node_agent.store_around import StoreAround

_Version = tuple[str, str]


class AgedStore(StoreAround):
    """The server's clock, and the times of what is written from now on, go ahead by what `older` was told."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._ahead = timedelta()
        # How far ahead the clock was when it was written.
        self._written: dict[_Version, timedelta] = {}

    def of_user(self, user_id: str) -> Store:
        """See Store; users share everything here."""
        del user_id
        return self

    def older(self, by: timedelta) -> None:
        """Time passes."""
        for entry in self._store.entries(""):
            self._written.setdefault((entry.key, entry.version), self._ahead)
        self._ahead += by

    def clock(self) -> datetime:
        """See Store."""
        return self._store.clock() + self._ahead

    def entries(
        self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT_MAX
    ) -> tuple[StoredEntry, ...]:
        """See Store."""
        found = self._store.entries(prefix, after=after, limit=limit)
        return tuple(replace(one, modified_at=one.modified_at + self._ahead_of(one)) for one in found)

    def delete_if_same(self, entry: StoredEntry) -> bool:
        """See Store."""
        return self._store.delete_if_same(
            replace(entry, modified_at=entry.modified_at - self._ahead_of(entry))
        )

    def _ahead_of(self, entry: StoredEntry) -> timedelta:
        return self._written.get((entry.key, entry.version), self._ahead)
