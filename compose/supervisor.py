"""Keeps programs running: starts them in order, starts again what dies, stops them in reverse order.

One thread and no timer of its own: `Supervisor.look` does what is due and says when to look again.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from compose.journal import Journal, Kind
from compose.processes import ProcessId, describe_exit, end_session, spawn

RESTART_FIRST_S = 0.2
RESTART_MAX_S = 10.0
# A program that ran this long before it died is not in a crash loop.
HEALTHY_AFTER_S = 30.0
DEATHS_OF_A_LOOP = 3
# How long a death can go unnoticed where the kernel does not tell us (what is not our child).
LOOK_EVERY_S = 1.0
LOG_BYTES_MAX = 10 << 20
LOGS_KEPT = 2


def restart_delay_s(deaths: int) -> float:
    """How long to wait before the next start, after so many short lives in a row (at least one)."""
    return float(min(RESTART_FIRST_S * 2 ** (min(deaths, 30) - 1), RESTART_MAX_S))


def deaths_in_a_row(before: int, lived_s: float) -> int:
    """The count that `restart_delay_s` takes, after one more death."""
    return 1 if lived_s >= HEALTHY_AFTER_S else before + 1


class Service(Protocol):
    """Something that is kept running."""

    @property
    def name(self) -> str:
        """For logs and pid files."""

    def start(self) -> int:
        """Start it; its pid. Raises OSError or ServiceError: it is tried again."""

    def ended(self) -> str | None:
        """How it ended, or None while it runs."""

    def stop(self) -> None:
        """End it, with all that it started, within a bound. Nothing happens if it is not there."""


class ServiceError(Exception):
    """A service could not be started. The message says why."""


@dataclass(slots=True)
class Program:
    """A service that is one command, with its log and its pid file."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    log: Path
    pid_file: Path
    stop_signal: int = signal.SIGTERM
    stop_timeout_s: float = 15.0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _id: ProcessId | None = field(default=None, init=False)

    def start(self) -> int:
        """Start the command. Raises OSError."""
        self._process = spawn(self.argv, self.environ, self.log)
        self._id = ProcessId.of(self._process.pid)
        if self._id:
            self._id.write(self.pid_file)
        return self._process.pid

    def ended(self) -> str | None:
        """How the command ended, or None. What it left of its session is removed then."""
        if self._process is None:
            return "was not started"
        code = self._process.poll()
        if code is None:
            return None
        self._end_session()
        return describe_exit(code)

    def stop(self) -> None:
        """Ask, wait, kill."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(self.stop_timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._end_session()
        self.pid_file.unlink(missing_ok=True)

    def _end_session(self) -> None:
        if self._id:
            end_session(self._id, timeout_s=5.0)


@dataclass(slots=True)
class _Kept:
    """One service with its history."""

    service: Service
    started_at: float = 0.0
    deaths: int = 0
    restart_at: float | None = None
    last_end: str = ""


class Supervisor:
    """The services in the order they were started."""

    def __init__(
        self, journal: Journal, *, logs: tuple[Path, ...] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal = journal
        self._logs = logs
        self._clock = clock
        self._kept: list[_Kept] = []

    def start(self, service: Service) -> None:
        """Start a service now and keep it from then on. Not kept if this raises OSError or ServiceError."""
        kept = _Kept(service)
        self._start(kept)
        self._kept.append(kept)

    def look(self) -> float:
        """Start what is due, note what died; seconds until there is something to do at the latest."""
        for kept in self._kept:
            self._look_at(kept)
        for directory in self._logs:
            # On a full disk a log cannot be moved aside; it cannot grow either.
            with contextlib.suppress(OSError):
                rotate_logs(directory)
        waits = [kept.restart_at - self._clock() for kept in self._kept if kept.restart_at is not None]
        return max(0.0, min([LOOK_EVERY_S, *waits]))

    def unsteady(self) -> tuple[str, str] | None:
        """Name and last end of a service that keeps dying."""
        found = (k for k in self._kept if k.deaths >= DEATHS_OF_A_LOOP)
        return next(((k.service.name, k.last_end) for k in found), None)

    def stop_all(self) -> None:
        """End all services, the last started first."""
        while self._kept:
            service = self._kept.pop().service
            self._journal.tell(Kind.DETAIL, step="stop", text=f"stopping {service.name}")
            service.stop()

    def _look_at(self, kept: _Kept) -> None:
        if kept.restart_at is None:
            how = kept.service.ended()
            if how is not None:
                self._note_death(kept, how)
        elif self._clock() >= kept.restart_at:
            try:
                self._start(kept)
            except Exception as error:  # noqa: BLE001  whatever it is must not end the other services
                self._note_death(kept, f"could not be started: {error}")

    def _start(self, kept: _Kept) -> None:
        kept.started_at = self._clock()
        pid = kept.service.start()
        kept.restart_at = None
        self._journal.tell(Kind.STARTED, program=kept.service.name, pid=pid)

    def _note_death(self, kept: _Kept, how: str) -> None:
        kept.deaths = deaths_in_a_row(kept.deaths, self._clock() - kept.started_at)
        kept.last_end = how
        delay_s = restart_delay_s(kept.deaths)
        kept.restart_at = self._clock() + delay_s
        self._journal.tell(Kind.ENDED, program=kept.service.name, how=how, again_in_s=delay_s)


class StopRequest:
    """SIGTERM, SIGINT and SIGHUP ask for an orderly end; SIGCHLD only wakes."""

    def __init__(self) -> None:
        self.requested = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._request)
        signal.signal(signal.SIGCHLD, _only_wake)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True

    def wait(self, timeout_s: float) -> None:
        """Until a signal came or the time is over."""
        ready, _, _ = select.select([self._reader], [], [], timeout_s)
        if ready:
            os.read(self._reader, 4096)


def _only_wake(_number: int, _frame: FrameType | None) -> None:
    """The wake-up descriptor has been written to: that is all it is for."""


def keep_running(supervisor: Supervisor, stop: StopRequest) -> None:
    """Look again and again until asked to stop."""
    while not stop.requested:
        stop.wait(supervisor.look())


def rotate_logs(directory: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Move the content of logs that have grown past the bound aside; the newest `LOGS_KEPT` are kept.

    Programs append to an open file, so it is copied and emptied in place. What is written in between is lost:
    a few lines at most, against a pipe that would stop a program when nobody reads.
    """
    for log in directory.glob("*.log"):
        if log.stat().st_size <= bytes_max:
            continue
        for number in range(LOGS_KEPT - 1, 0, -1):
            older = log.with_suffix(f".log.{number}")
            if older.exists():
                older.replace(log.with_suffix(f".log.{number + 1}"))
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)
