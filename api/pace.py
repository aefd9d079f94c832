"""How fast each caller may ask: a bucket of requests that fills again with time. Pure but for its memory."""

from collections import OrderedDict

# Names that are remembered; whoever was quiet for longest is forgotten first, and begins with a full bucket.
NAMES_MAX = 10_000


class Pace:
    """`per_s` requests a second for each name; after a pause as many at once as come to `burst_s` seconds."""

    def __init__(self, per_s: int, burst_s: float) -> None:
        self._per_s = per_s
        self._full = per_s * burst_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, name: str, now_s: float) -> float:
        """0 when `name` may ask now, which counts; otherwise how long until it may."""
        left, at_s = self._left.get(name, (self._full, now_s))
        left = min(self._full, left + max(0.0, now_s - at_s) * self._per_s)
        allowed = left >= 1
        self._left[name] = (left - 1 if allowed else left, now_s)
        self._left.move_to_end(name)
        if len(self._left) > NAMES_MAX:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._per_s
