"""Which sockets are open in nginx, and whose: read from the lines it writes of them. Pure."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from state.revoked import Revoked, Visit


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """One connection of a browser: both of its ends, and by what it was let in."""

    own: tuple[str, int]
    peer: tuple[str, int]
    visit: Visit


class OpenSockets:
    """Those that were opened and not closed, as far as the lines say."""

    def __init__(self) -> None:
        self._open: dict[str, OpenSocket] = {}

    def read(self, lines: Iterable[str]) -> None:
        """Take in lines of nginx's log, in their order. What is no such line is passed over: logs get cut."""
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue

    def _take(self, said: dict[str, str]) -> None:
        if said["event"] == "close":
            self._open.pop(said["connection"], None)
            return
        key, issued_at, user = said["visit"].split(" ")
        self._open[said["connection"]] = OpenSocket(
            own=(said["own"], int(said["own_port"])),
            peer=(said["peer"], int(said["peer_port"])),
            visit=Visit(key, said["pod"], said["session"], unquote(user), int(issued_at)),
        )

    def stopped_by(self, revoked: Revoked) -> list[OpenSocket]:
        """Those that must not stay open."""
        return [one for one in self._open.values() if revoked.stops(one.visit)]

    def __len__(self) -> int:
        return len(self._open)
