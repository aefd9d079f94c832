"""A schedule of the simulation as things to do to the real parts, and what of it has no counterpart there.

It is played in the simulation first: its trace says which call each fault met, and when. Time is real there,
so the order is kept, and the calls; not the nanoseconds, nor where pods are placed.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from tests.sim.fleet import run
from tests.sim.schedule import NODES, PODS, RECONCILERS, Fault, Schedule

_LINE = re.compile(r"(\d+) ([\d.]+) (\S+?)/\S+ ([a-z]+\.[a-z_]+).*?(?: !([a-z_]+))?$")
_DEEDS = {
    "crash_before": ("before", "crash"),
    "crash_after": ("after", "crash"),
    # The engine or the store has it, and nobody hears of that: as if it had come after the death.
    "crash_late": ("after", "crash"),
    "error_before": ("before", "error"),
    "error_after": ("after", "error"),
    "pause": ("before", "stop"),
}
# The simulation's names of calls that are called otherwise, and of parts that have no failpoints.
_CALLS = {
    "store.commit": "store.writer.commit",
    "store.write": "store.writer.write",
    "store.open": "store.open_writer",
}
_NEAREST = {
    "exit_pod": "exit_pod",
    "start_pod": "start_pod",
    "cordon": "cordon",
    "uncordon": "uncordon",
    # Its agent hears and does nothing; its pods go on.
    "partition": "pause_agent",
    "partition_all": "pause_agents",
    "reboot_late": "kill_agent",
    "reboot": "kill_agent",
}


@dataclass(frozen=True, slots=True)
class Deed:
    """At `at_s` after the beginning, `what` is done to `who`; `lasts_s` where it ends by itself.

    A failpoint was met in the simulation at `met_at_s`: what comes later there waits for that.
    """

    at_s: float
    what: str
    who: str
    detail: str = ""
    lasts_s: float = 0.0
    met_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Call:
    step: int
    at_s: float
    process: str
    port: str
    fault: str


def deeds_of(schedule: Schedule) -> tuple[list[Deed], list[str]]:
    """What to do to the real parts, in order; and a line for each fault that cannot be done to them."""
    lines: list[str] = []
    run(schedule, echo=lines.append)
    times = [(int(words[0]), float(words[1])) for words in map(str.split, lines)]
    calls = [_Call(int(m[1]), float(m[2]), m[3], m[4], m[5] or "") for m in map(_LINE.match, lines) if m]
    met: set[_Call] = set()
    deeds, left_out = [], []
    for fault in schedule.faults:
        at_s = _at(times, fault.step)
        deed = _at_call(fault, at_s, calls, met) if fault.at_call else _by_itself(fault, at_s)
        if isinstance(deed, Deed):
            deeds.append(deed)
        else:
            left_out.append(f"step {fault.step}, {fault.actor}: {fault.kind} {fault.port}: {deed}")
    # What lies in wait does so before the wish that leads there.
    return sorted(deeds, key=lambda deed: (deed.at_s, deed.what != "failpoint")), left_out


def _at(times: Sequence[tuple[int, float]], step: int) -> float:
    """The simulation's time at a step; its end for one that was never reached."""
    found = bisect_left(times, (step, 0.0))
    return times[min(found, len(times) - 1)][1]


def _by_itself(fault: Fault, at_s: float) -> Deed | str:
    kind, _, detail = fault.kind.partition(":")
    if kind == "wish" and fault.actor in PODS:
        return Deed(at_s, "wish", fault.actor, detail)
    if kind in _NEAREST:
        return Deed(at_s, _NEAREST[kind], fault.actor, lasts_s=fault.arg)
    return "nothing like it is done to the real parts here"


def _at_call(fault: Fault, at_s: float, calls: Sequence[_Call], met: set[_Call]) -> Deed | str:
    hit = next(
        (
            call
            for call in calls
            if call.fault == fault.kind
            and call.step >= fault.step
            and fault.actor in (call.process, "*")
            and call not in met
        ),
        None,
    )
    if hit is None:
        return "it met no call in the simulation either"
    met.add(hit)
    if fault.kind not in _DEEDS:
        return "there is no failpoint that does this"
    if hit.process in RECONCILERS:
        return Deed(hit.at_s, "kill_reconciler", hit.process)
    if hit.process not in NODES:
        return "nobody real acts there"
    when, does = _DEEDS[fault.kind]
    port = _CALLS.get(hit.port, hit.port).replace("docker.", "runtime.")
    if not port.startswith(("runtime.", "store.")):
        what = "pause_agent" if does == "stop" else "kill_agent"
        return Deed(hit.at_s, what, hit.process, lasts_s=fault.arg)
    nth = sum(
        call.process == hit.process and call.port == hit.port and fault.step <= call.step <= hit.step
        for call in calls
    )
    return Deed(at_s, "failpoint", hit.process, f"{port}.{when}:{nth}={does}", fault.arg, hit.at_s)
