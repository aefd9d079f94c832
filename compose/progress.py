"""Steps on the terminal: what is being done, how far it is, how long it took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from compose.journal import Entry, Kind

# A step shorter than this is only told when it is done.
SHORT_S = 1.0
# How often a log that is no terminal hears of a step that goes on.
REPEAT_S = 5.0


class Progress:
    """One step at a time. On a terminal the line moves; elsewhere plain lines are written."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._status: Status | None = None
        self._text = ""
        self._detail = ""
        self._began_at: float | None = None
        self._told_at: float | None = None

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """A step of our own; the value says how far it is."""
        began_at = self._clock()
        self.begin(text)
        try:
            yield self.detail
        except BaseException:  # Ctrl-C, too, must not write on the step's line
            self.leave()
            raise
        self.done(self._clock() - began_at)

    def show(self, entry: Entry) -> None:
        """An entry of the supervisor's journal, if it tells of a step."""
        match entry["kind"]:
            case Kind.STEP:
                self.begin(entry["text"])
            case Kind.DETAIL:
                self.detail(entry["text"])
            case Kind.STEP_DONE:
                self.done(entry["took_s"])
            case Kind.STOPPING:
                self.begin("Stopping programs and pods")

    def begin(self, text: str) -> None:
        """A step begins."""
        self.leave()
        self._text, self._detail, self._began_at, self._told_at = text, "", self._clock(), None
        if self._console.is_terminal:
            self._status = self._console.status(escape(text))
            self._status.start()

    def detail(self, text: str) -> None:
        """How far it is."""
        self._detail = text
        if self._status:
            self._status.update(f"{escape(self._text)} [dim]{escape(text)}[/]")

    def tick(self) -> None:
        """Time passes: a longer step is told where no line moves."""
        if self._status or self._began_at is None:
            return
        now = self._clock()
        due_at = self._began_at + SHORT_S if self._told_at is None else self._told_at + REPEAT_S
        if now >= due_at:
            self._told_at = now
            said = f"{self._text}: {self._detail}" if self._detail else self._text
            self._console.print(f"  … {said} ({now - self._began_at:.0f} s)", markup=False, highlight=False)

    def done(self, took_s: float) -> None:
        """The step is done."""
        text = self._text
        self.leave()
        self._console.print(f"  [green]✓[/] {escape(text)} [dim]{took_s:.1f} s[/]", highlight=False)

    def leave(self) -> None:
        """No step is under way any more."""
        if self._status:
            self._status.stop()
        self._status, self._began_at = None, None
