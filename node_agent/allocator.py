"""How the process asks the system for memory, so that its buffers are bounded in all and not only each."""

import ctypes

# From mallopt(3).
_M_MMAP_THRESHOLD = -3
LARGE_BYTES = 1 << 20


def give_back_large_buffers() -> None:
    """Have what is larger than 1 MiB go back to the system as soon as it is free.

    By itself the GNU C library learns from the first large buffer that is freed to keep such ones, in the
    arenas of its threads: two archives on their way to S3 then held 230 to 250 MiB, of which they used half
    (docs/bench.md). Elsewhere nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
