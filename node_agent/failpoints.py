"""Named places where an agent dies, stops or fails on purpose: for tests of faults on the real parts.

CODEPODS_FAILPOINTS holds any number of `NAME:NTH=DEED`, with `;` between them:
- NAME is `<port>.<call>.before` or `.after`, as in `store.put_manifest.after` or `runtime.rename.before`; of
  a blob under way `store.writer.write`, `store.writer.commit`.
- NTH counts calls from 1, in this process.
- DEED is `crash` (as kill -9 does), `stop` (SIGSTOP, until somebody sends SIGCONT), or `error` (the port's
  own error for "cannot now"; after an effect that means: it was done, and the answer was lost).

Unset, nothing of this is in the way: the ports are used as they are.
"""

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from node_agent.errors import EngineUnavailable
from node_agent.store import StoreUnavailable

VARIABLE = "CODEPODS_FAILPOINTS"
_POINT = re.compile(r"(?P<name>[a-z_.]+\.(?:before|after)):(?P<nth>[1-9]\d*)=(?P<deed>crash|stop|error)")
_ERRORS = {"store": StoreUnavailable, "runtime": EngineUnavailable}

P = TypeVar("P")


class Failpoints:
    """Counts calls, and does the deed of each point when its turn comes. Safe to use from several threads."""

    def __init__(self, text: str) -> None:
        self._deeds = dict(map(_parse, filter(None, text.split(";"))))
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        """A call has come to this point."""
        with self._lock:
            self._counts[name] += 1
            deed = self._deeds.get((name, self._counts[name]))
        if deed == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif deed == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif deed == "error":
            raise _ERRORS[name.partition(".")[0]](f"failpoint {name}")

    def around(self, port: P, name: str) -> P:
        """The port, with a point before and after each of its calls."""
        return cast("P", _Watched(port, name, self)) if self._deeds else port


def _parse(text: str) -> tuple[tuple[str, int], str]:
    found = _POINT.fullmatch(text)
    if found is None or found["name"].partition(".")[0] not in _ERRORS:
        raise ValueError(
            f"{VARIABLE}: {text!r} is not understood; write store.put_manifest.after:1=crash (or stop, error)"
        )
    return (found["name"], int(found["nth"])), found["deed"]


class _Watched:
    """Any port. What it returns is watched too where it is a blob under way."""

    def __init__(self, port: Any, name: str, points: Failpoints) -> None:
        self._port, self._name, self._points = port, name, points

    def __getattr__(self, call: str) -> Any:
        found = getattr(self._port, call)
        return self._around(found, call) if callable(found) else found

    def _around(self, function: Callable[..., Any], call: str) -> Callable[..., Any]:
        name = f"{self._name}.{call}"

        @wraps(function)
        def watched(*arguments: Any, **named: Any) -> Any:
            self._points.reach(f"{name}.before")
            result = function(*arguments, **named)
            self._points.reach(f"{name}.after")
            if call == "open_writer":
                return _WatchedWriter(result, f"{self._name}.writer", self._points)
            return _Watched(result, self._name, self._points) if call == "of_user" else result

        return watched


class _WatchedWriter(_Watched):
    def __enter__(self) -> Self:
        self._port.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._port.__exit__(kind, error, trace)
