"""Nodes that wait at the gateway for something to do, and the one bell that wakes them.

A node has news exactly when its open actions are not those that it has in hand, or when it was given some
that were taken back since. One thread asks the database for all open actions, when the bell rings and at
least once a second, and wakes the nodes that have news: so the cost of waiting does not grow with the number
of those who wait.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from reconciler.outage import Outage
from state.chores import waiting_kinds
from state.database import Database, DatabaseUnavailable, Doorbell
from state.delivery import OpenIds, open_action_ids
from state.presence import looks_asked
from state.wire import SyncRequest

SAFETY_POLL_S = 1.0


@dataclass(slots=True)
class Waiter:
    """One node's long poll. Lives on the event loop."""

    boot_id: str
    sequence: int
    in_hand: frozenset[str]
    # Of the kinds of chores that it would take one of.
    chore_kinds: frozenset[str] = frozenset()
    ending: frozenset[str] = frozenset()
    look_at: frozenset[str] = frozenset()
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def is_older_than(self, other: "Waiter") -> bool:
        """Calls of one boot are numbered; of different boots, the one that comes here later is the newer."""
        return self.boot_id != other.boot_id or self.sequence < other.sequence

    def end(self) -> None:
        """Answer with what there is: somebody newer waits for this node, or we are stopping."""
        self.ended = True
        self.news.set()


class WaitingNodes:
    """At most one long poll per node: a newer one ends the older. All of it runs on the event loop."""

    def __init__(self) -> None:
        self._waiters: dict[str, Waiter] = {}
        self._closing = False

    def __len__(self) -> int:
        return len(self._waiters)

    @contextmanager
    def waiting(self, message: SyncRequest) -> Iterator[Waiter]:
        """Wait for the node of this message while the block runs."""
        node_id = message.node_id
        kinds = frozenset(message.chores.kinds if message.chores.wanted else ())
        in_hand, ending = frozenset(message.in_hand), frozenset(message.ending)
        waiter = Waiter(message.boot_id, message.sequence, in_hand, kinds, ending)
        other = self._waiters.get(node_id)
        if self._closing or (other is not None and not other.is_older_than(waiter)):
            waiter.end()
        else:
            self._waiters[node_id] = waiter
            if other is not None:
                other.end()
        try:
            yield waiter
        finally:
            if self._waiters.get(node_id) is waiter:
                del self._waiters[node_id]

    def look(self, open_ids: Mapping[str, OpenIds], waiting_chores: frozenset[str] = frozenset()) -> None:
        """Wake those whose open actions are not what they have in hand, or who would take a waiting chore."""
        for node_id, waiter in self._waiters.items():
            open_here = open_ids.get(node_id, OpenIds())
            if open_here.are_news(waiter.in_hand, waiter.ending) or waiter.chore_kinds & waiting_chores:
                waiter.news.set()

    def ask_to_look(self, pods_of: Mapping[str, frozenset[str]]) -> None:
        """Wake those who are to look at pods of theirs; who is not waiting now is asked the next time."""
        for node_id, waiter in self._waiters.items():
            if node_id in pods_of:
                waiter.look_at = pods_of[node_id]
                waiter.news.set()

    def close(self) -> None:
        """Let everybody go, now and from now on."""
        self._closing = True
        for waiter in self._waiters.values():
            waiter.end()


class Waker(threading.Thread):
    """The thread that listens for new actions on behalf of all waiting nodes."""

    def __init__(
        self,
        db: Database,
        doorbell: Doorbell,
        nodes: WaitingNodes,
        loop: asyncio.AbstractEventLoop,
        outage: Outage,
    ) -> None:
        super().__init__(name="waker", daemon=True)
        self._db = db
        self._doorbell = doorbell
        self._nodes = nodes
        self._loop = loop
        self._outage = outage
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Look at the open actions at every ring, and once a second without one."""
        while not self._stop_asked.is_set():
            self._doorbell.wait(SAFETY_POLL_S)
            if len(self._nodes) > 0 and not self._stop_asked.is_set():
                self._look()

    def stop(self) -> None:
        """End the thread, and wait for its end."""
        self._stop_asked.set()
        self._doorbell.ring()
        self.join()

    def _look(self) -> None:
        try:
            open_ids, waiting_chores = open_action_ids(self._db), waiting_kinds(self._db)
            looks = looks_asked(self._db)
        except DatabaseUnavailable as error:
            self._outage.met(error)
            self._stop_asked.wait(SAFETY_POLL_S)
            return
        self._outage.over()
        self._loop.call_soon_threadsafe(self._nodes.look, open_ids, waiting_chores)
        if looks:
            self._loop.call_soon_threadsafe(self._nodes.ask_to_look, looks)
