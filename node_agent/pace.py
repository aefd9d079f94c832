"""How fast a long step is now: bytes per second over the last seconds. Pure: the clock is handed in."""

from collections import deque

WINDOW_S = 5.0
# Before so much time has passed a rate says nothing.
FIRST_AFTER_S = 0.5


class Pace:
    """Of one step. It starts anew with each phase, and where the count goes back."""

    def __init__(self) -> None:
        self._phase = ""
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, now_s: float, phase: str, done_bytes: int) -> int | None:
        """The rate after this note, in bytes per second; None while it is too early to say."""
        if phase != self._phase or (self._seen and done_bytes < self._seen[-1][1]):
            self._phase = phase
            self._seen.clear()
        self._seen.append((now_s, done_bytes))
        # The oldest one kept lies at the window's edge or before it.
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        since_s, before_bytes = self._seen[0]
        if now_s - since_s < FIRST_AFTER_S:
            return None
        return int((done_bytes - before_bytes) / (now_s - since_s))
