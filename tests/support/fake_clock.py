"""A wall clock that can be made to jump, for some processes: a preloaded library shifts what they read of it.

The monotonic clock, waits, files' times and other processes are as they are, as when a real machine's clock
is set. (Debian's libfaketime cannot do that: with the monotonic clock left alone, it breaks Python's sleep.)
"""

import mmap
import struct
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;
static int (*true_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void find(void) {
    true_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int file = open(getenv("CODEPODS_TEST_CLOCK"), O_RDONLY);
    if (file < 0) abort();
    ahead = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (ahead == MAP_FAILED) abort();
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = true_clock(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
"""


class FakeClock:
    """At first it goes right. `environment` is for the processes that are to read it."""

    def __init__(self, folder: Path) -> None:
        """`folder` is a new one. Needs a C compiler."""
        folder.mkdir()
        source, library, shift = folder / "clock.c", folder / "clock.so", folder / "ahead"
        source.write_text(_SOURCE)
        built = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
        subprocess.run(built, check=True, timeout=60)
        shift.write_bytes(bytes(mmap.PAGESIZE))
        with shift.open("r+b") as file:
            self._ahead = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environment = {"LD_PRELOAD": str(library), "CODEPODS_TEST_CLOCK": str(shift)}

    def set(self, ahead_s: int) -> None:
        """From now on the clock is ahead of the true time by so many seconds, or behind."""
        self._ahead[:8] = struct.pack("q", ahead_s)
