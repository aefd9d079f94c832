"""What the gate costs: codepods' front door beside plain nginx and configurable-http-proxy, in one run.

    .venv/bin/python -m bench.proxy [--quick] [--check] [--cache DIRECTORY]

All proxies listen on loopback, with TLS, one certificate and one worker each, on the last processor; backends
and clients run on the others. Rounds alternate, their order turns, and each ratio is taken within its round;
a row shows least, median and most (of more than 30 ratios the quartiles), and is judged by its median. Other
load on the machine moves throughput and p99, so CPU per request is the figure to keep.

- CPU per request: processor time of the proxy's worker (/proc/<pid>/schedstat) over the requests that wrk
  counted (16 kept connections, 64 pods in turn, each with its cookie); the backend is an nginx that answers.
  A round compares two proxies in slices of 50 ms in turn, so that other work meets both alike; throughput and
  p99 come from whole bursts.
  plain-nginx has a variable proxy_pass, a log and nothing else. configurable-http-proxy has one route and
  checks nothing; it keeps its connections to the backend, which nginx here does not: code-server counts
  connections as presence.
- code-server: the workbench's style sheet (1.6 MB) from a container of the pod image, 4 connections, in
  slices of 0.3 s in turn.
- WebSocket: round trips of 64 bytes one after another through one open socket to `bench/proxy_echo.py`; the
  proxies take turns of 200 round trips each, and each turn's medians make one ratio.
- Memory: growth of the worker's resident memory over 1,000 sockets that have each echoed once, on a fresh
  nginx that has seen 50 already; with TLS, and without it as behind a balancer that does it. The kernel's own
  buffers are not in it. The target is one without TLS.
- 10,000 held: how long it takes from following a link to an echo through a socket, in turn where nothing is
  open beside it and where 10,000 sockets are on the one worker, or as many as the limit of open files allows.
- Rotation, reload: four clients ask without a pause and sockets are open while the key is rotated, or nginx
  reloaded, some times; failed requests (asked again once where a browser would), sockets that echo no more.

`--check` exits 1 when a row misses its target or is left out, and names such rows last. `--quick`: fewer and
shorter rounds. Needs wrk; configurable-http-proxy is installed by npm into the cache directory, outside the
checkout. Rows whose parts cannot be had are left out, with why. The load is bounded in count and time.
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from bench.proxy_fronts import (
    PROCESSORS,
    Front,
    Site,
    UnavailableError,
    chp,
    install_chp,
    pods,
    real_ide,
    site,
)
from bench.proxy_fronts import ours as start_ours
from bench.proxy_fronts import plain as start_plain
from bench.proxy_load import Browsers, EchoSocket, Load, burst, in_turns, open_sockets, opening
from tests.support.nginx import front_directory

T = TypeVar("T")

OURS, PLAIN, CHP = "codepods", "plain-nginx", "configurable-http-proxy"
LOAD_CONNECTIONS = 16
# Between loads, until the pods' rate limits are far away again: 64 times 200 requests are forgotten in 1 s.
LIMITS_FORGET_S = 5.0
IDE_CONNECTIONS = 4
# One answer takes some 12 ms: what is under way at a slice's end is little of it.
IDE_SLICE_S = 0.3
IDE_TURNS = 12
SOCKETS_WARM = 50
# Of more ratios than these the middle half is shown, not the extremes.
MANY = 30
# Below the rate at which links may be followed from one address (nginx.conf.template, zone redeem).
OPENING_EVERY_S = 0.06
SOCKETS_HELD = 50
# What a worker needs besides two for each socket: listeners, logs, kept answers, connections that open.
FILES_BESIDES = 200
# nginx's old worker is told to end some time after the new one has started.
RELOAD_SETTLES_S = 1.0


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of each: the rounds and, in each, seconds, round trips or events."""

    rounds: int
    burst_s: int
    socket_turns: int
    cpu_turns: int
    sockets: int
    events: int
    held: int
    openings: int


FULL = Amounts(9, 2, socket_turns=200, cpu_turns=30, sockets=1000, events=5, held=10_000, openings=300)
QUICK = Amounts(3, 1, socket_turns=40, cpu_turns=10, sockets=200, events=2, held=1000, openings=60)
# Round trips of one turn.
TRIPS = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `value` is judged: at most `target`, at least it if `at_least`, not if None."""

    what: str
    figure: str
    beside: str
    value: float
    target: float | None = None
    at_least: bool = False

    @property
    def missed(self) -> bool:
        """Whether there is a target, and this is not it."""
        if self.target is None:
            return False
        return self.value < self.target if self.at_least else self.value > self.target

    @property
    def aim(self) -> str:
        """The target, in signs."""
        return "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g}"


def _spread(values: Sequence[float]) -> str:
    """Least, median, most; of very many the middle half instead."""
    least, most = min(values), max(values)
    if len(values) > MANY:
        least, _, most = statistics.quantiles(values, n=4)
    return f"{least:.2f} / {statistics.median(values):.2f} / {most:.2f}"


def _ratio_row(
    what: str,
    values: Sequence[tuple[float, float]],
    target: float | None,
    unit: str,
    *,
    at_least: bool = False,
) -> Row:
    """values: (ours, the other's) of each round."""
    ratios = [one / other for one, other in values]
    mine, theirs = (statistics.median(side) for side in zip(*values, strict=True))
    beside = f"{mine:,.0f} : {theirs:,.0f} {unit}"
    return Row(what, _spread(ratios), beside, statistics.median(ratios), target, at_least)


def _alternate(fronts: Sequence[Front], rounds: int, measure: Callable[[Front], None]) -> None:
    """Each front once a round; who begins changes from round to round."""
    for number in range(rounds):
        first = number % len(fronts)
        for front in (*fronts[first:], *fronts[:first]):
            measure(front)


def _targets(front: Front, kind: str, path: str) -> list[tuple[str, str]]:
    return [(f"/pods/{pod}/{path}", front.cookie(pod)) for pod in pods(kind)]


def _bursts(
    fronts: Sequence[Front], kind: str, path: str, connections: int, amounts: Amounts
) -> dict[str, list[Load]]:
    """By front, the load of each round, after one burst that does not count."""
    targets = {front.name: _targets(front, kind, path) for front in fronts}
    loads: dict[str, list[Load]] = {front.name: [] for front in fronts}

    def measure(front: Front) -> None:
        loads[front.name].append(burst(front, targets[front.name], connections, amounts.burst_s))

    _alternate(fronts, amounts.rounds + 1, measure)
    return {name: of_front[1:] for name, of_front in loads.items()}


def requests_rows(here: Site, amounts: Amounts, chp_command: Path | None) -> Iterator[Row]:
    """CPU per request, with throughput and p99 beside it."""
    with ExitStack() as stack:
        fronts = [stack.enter_context(start_ours(here, OURS)), stack.enter_context(start_plain(here, PLAIN))]
        if chp_command is not None:
            fronts.append(stack.enter_context(chp(here, CHP, chp_command)))
        loads = _bursts(fronts, "load", "x", LOAD_CONNECTIONS, amounts)
        spent = {other.name: _cpu_in_turns(fronts[0], other, amounts) for other in fronts[1:]}
    for other, target in ((PLAIN, 1.10), (CHP, 1.0)):
        if other in loads:
            pairs = list(zip(loads[OURS], loads[other], strict=True))
            cpu = spent[other]
            yield _ratio_row(f"CPU per request : {other}", cpu, target, "µs")
            yield _ratio_row(f"requests/s : {other}", [(a.per_s, b.per_s) for a, b in pairs], None, "/s")
            yield _ratio_row(f"p99 : {other}", [(a.p99_us, b.p99_us) for a, b in pairs], None, "µs")


def _cpu_in_turns(mine: Front, other: Front, amounts: Amounts) -> list[tuple[float, float]]:
    """(ours, the other's) of each round, in microseconds per request, after one round that does not count."""
    targets = {front.name: _targets(front, "load", "x") for front in (mine, other)}
    rounds = []
    for _ in range(amounts.rounds + 1):
        time.sleep(LIMITS_FORGET_S)
        rounds.append(in_turns([mine, other], targets, amounts.cpu_turns))
    return [(did[mine.name].cpu_us, did[other.name].cpu_us) for did in rounds[1:]]


def ide_rows(here: Site, amounts: Amounts) -> Iterator[Row]:
    """Requests per second in front of a real code-server."""
    path = _static_file(here.backends["ide"])
    with start_ours(here, f"{OURS}-ide") as mine, start_plain(here, "plain-ide") as other:
        targets = {front.name: _targets(front, "ide", path) for front in (mine, other)}
        rounds = [
            in_turns([mine, other], targets, IDE_TURNS, slice_s=IDE_SLICE_S, connections=IDE_CONNECTIONS)
            for _ in range(amounts.rounds + 1)
        ]
    pairs = [(did[mine.name].per_s, did[other.name].per_s) for did in rounds[1:]]
    yield _ratio_row("requests/s before code-server : plain-nginx", pairs, 0.99, "/s", at_least=True)


def _static_file(address: str) -> str:
    """A file of the workbench that needs no session, below the pod's own root."""
    path = "_static/lib/vscode/out/vs/code/browser/workbench/workbench.css"
    status = httpx.get(f"http://{address}/{path}").status_code
    if status != httpx.codes.OK:
        raise UnavailableError(f"code-server answers {status} for {path}")
    return path


def socket_rows(here: Site, amounts: Amounts) -> Iterator[Row]:
    """Echo round trips through an open socket."""
    with ExitStack() as stack:
        fronts = [
            stack.enter_context(start_ours(here, f"{OURS}-echo")),
            stack.enter_context(start_plain(here, "plain-echo")),
        ]
        p50: dict[str, list[float]] = {front.name: [] for front in fronts}
        p99: dict[str, list[float]] = {front.name: [] for front in fronts}
        pod = pods("echo")[0]
        sockets = {front.name: EchoSocket(front, pod, front.cookie(pod)) for front in fronts}
        for one in sockets.values():
            stack.callback(one.close)

        def measure(front: Front) -> None:
            trips = sorted(sockets[front.name].trip() * 1e6 for _ in range(TRIPS))
            p50[front.name].append(statistics.median(trips))
            p99[front.name].append(trips[int(0.99 * len(trips))])

        _alternate(fronts, amounts.socket_turns + 1, measure)
    mine, other = (front.name for front in fronts)
    for name, values, target in (("p50", p50, 1.05), ("p99", p99, None)):
        pairs = list(zip(values[mine][1:], values[other][1:], strict=True))
        yield _ratio_row(f"WebSocket round trip {name} : plain-nginx", pairs, target, "µs")


def memory_rows(here: Site, amounts: Amounts) -> Iterator[Row]:
    """Memory of the worker for each open socket."""
    for tls, how, target in ((False, "without TLS", 40), (True, "with TLS", None)):
        with (
            start_ours(here, f"{OURS}-memory-{tls}", tls=tls) as mine,
            start_plain(here, f"plain-memory-{tls}", tls=tls) as other,
        ):
            kib = [_kib_per_socket(front, amounts.sockets) for front in (mine, other)]
        beside = f"{kib[0]:.0f} : {kib[1]:.0f} KiB ({amounts.sockets:,} open)"
        yield Row(f"KiB per open WebSocket, {how} : plain-nginx", f"{kib[0]:.0f}", beside, kib[0], target)


def held_rows(here: Site, amounts: Amounts) -> Iterator[Row]:
    """Openings while very many sockets are held on one worker."""
    names = pods("echo")
    count = min(amounts.held, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - FILES_BESIDES) // 2)
    times: dict[str, list[float]] = {"held": [], "idle": []}
    with start_ours(here, "held") as many, start_ours(here, "idle") as none:
        held = [(pod, many.cookie(pod)) for pod in (names[n % len(names)] for n in range(count))]
        with open_sockets(many, held) as sockets:
            for n in range(amounts.openings):
                time.sleep(OPENING_EVERY_S)
                for front in (many, none) if n % 2 else (none, many):
                    times[front.name].append(opening(front, names[n % len(names)]))
            cut = sum(not one.alive() for one in sockets)
    p99 = [statistics.quantiles(taken, n=100)[98] * 1e3 for taken in times.values()]
    what = f"{count:,} sockets held"
    yield Row(f"{what}: refused or cut", str(cut), f"{amounts.openings} more opened", cut, 0)
    ratio = p99[0] / p99[1]
    beside = f"{p99[0]:.1f} : {p99[1]:.1f} ms"
    yield Row(f"{what}: p99 of an opening : with none", f"{ratio:.2f}", beside, ratio, 2.0)


def _kib_per_socket(front: Front, count: int) -> float:
    names = pods("echo")
    opened = [
        (pod, front.cookie(pod)) for pod in (names[n % len(names)] for n in range(count + SOCKETS_WARM))
    ]
    with open_sockets(front, opened[:SOCKETS_WARM]):
        before = front.resident_kib()
        with open_sockets(front, opened[SOCKETS_WARM:]):
            return (front.resident_kib() - before) / count


def rotation_rows(here: Site, amounts: Amounts) -> Iterator[Row]:
    """The key rotated while requests and sockets are under way."""
    with start_ours(here, f"{OURS}-rotation") as front:
        yield from _continuity("key rotation", front, front.rotate, 0.5, amounts)


def reload_rows(here: Site, amounts: Amounts) -> Iterator[Row]:
    """nginx reloaded while requests and sockets are under way."""
    with start_ours(here, f"{OURS}-reload") as front:
        yield from _continuity("nginx reload", front, front.reload, RELOAD_SETTLES_S, amounts)


def _continuity(
    event: str, front: Front, act: Callable[[], None], settles_s: float, amounts: Amounts
) -> Iterator[Row]:
    """Each time, the cookies in use are those of the key that was current before the event."""
    names = pods("echo")[:SOCKETS_HELD]
    held = [(pod, front.cookie(pod)) for pod in names]
    targets = _targets(front, "load", "x")
    browsers = Browsers(front, lambda: targets)
    with open_sockets(front, held) as sockets:
        with browsers.asking():
            for _ in range(amounts.events):
                targets = _targets(front, "load", "x")
                time.sleep(settles_s)
                act()
                time.sleep(settles_s)
        cut = sum(not one.alive() for one in sockets)
    asked = f"{browsers.asked:,} requests in {amounts.events} times, {browsers.again} asked again"
    yield Row(f"{event} under load: failed requests", str(browsers.failed), asked, browsers.failed, 0)
    yield Row(f"{event} under load: sockets cut", str(cut), f"{len(held)} open", cut, 0)


def _all_rows(amounts: Amounts, cache: Path, left_out: list[str]) -> list[Row]:
    with ExitStack() as stack:
        chp_command = _or_left_out("against configurable-http-proxy", lambda: install_chp(cache), left_out)
        ide = _or_left_out("before code-server", lambda: stack.enter_context(real_ide()), left_out)
        here = stack.enter_context(site(stack.enter_context(front_directory()), ide))
        rows = [*requests_rows(here, amounts, chp_command)]
        if ide is not None:
            rows += ide_rows(here, amounts)
        for part in (socket_rows, memory_rows, rotation_rows, reload_rows, held_rows):
            rows += part(here, amounts)
    return rows


def _or_left_out(rows: str, get: Callable[[], T], left_out: list[str]) -> T | None:
    try:
        return get()
    except UnavailableError as error:
        left_out.append(f"the rows {rows}: {error}")
        return None


def _table(rows: Sequence[Row]) -> Table:
    table = Table("what : compared with", "ratio or count (min / med / max)", "medians", "target", "")
    for row in rows:
        verdict = "" if row.target is None else "missed" if row.missed else "met"
        table.add_row(row.what, row.figure, row.beside, row.aim, verdict)
    return table


def main() -> int:
    """Run, print the table; 1 when checked and a target was missed, or could not be looked at."""
    parser = argparse.ArgumentParser(description="What the gate costs beside plain nginx.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--check", action="store_true", help="exit 1 when a row misses its target")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "codepods-bench")
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is not on PATH. Install it: apt-get install wrk (Debian)", file=sys.stderr)
        return 2
    files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    os.sched_setaffinity(0, PROCESSORS[:-1] or PROCESSORS)
    console = Console(width=140)
    loaded = os.getloadavg()[0]
    left_out: list[str] = []
    rows = _all_rows(QUICK if chosen.quick else FULL, chosen.cache, left_out)
    console.print(_table(rows))
    console.print(f"load of the machine before: {loaded:.1f}, after: {os.getloadavg()[0]:.1f}")
    if left_out:
        console.print(f"left out: {'; '.join(left_out)}")
    missed = [row.what for row in rows if row.missed]
    if missed:
        console.print(f"missed: {'; '.join(missed)}")
    return 1 if chosen.check and (missed or left_out) else 0


if __name__ == "__main__":
    sys.exit(main())
