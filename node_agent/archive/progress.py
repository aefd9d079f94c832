"""How far a long archive step is."""

from collections.abc import Callable

# Called with bytes done and bytes in all, of the uncompressed tree. The total is an estimate in capture;
# done may pass it by the tar's own headers. Called from the thread that does the work; must be quick.
Progress = Callable[[int, int], None]


def unwatched(done_bytes: int, total_bytes: int) -> None:
    """For callers that nobody waits on."""
