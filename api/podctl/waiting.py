"""Waiting for a pod with an end: reached, hopeless, failing, or out of time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from api import wire
from api.outlook import is_hopeless, is_reached
from api.podctl.client import RETRYABLE, Client
from api.podctl.failing import Failed, plain
from state.backoff import KEEPS_FAILING
from state.model import Desired

# How often progress is shown: the API holds each question this long at most.
LOOK_S = 1.0
PAUSE_S = 0.2
MIB = 1024 * 1024

Show = Callable[[wire.Pod], None]


class Patience:
    """How long somebody waits in all: `timeout_s`, from now on."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """What is left of it, at least zero."""
        return max(0.0, self._deadline - time.monotonic())


def wait_for(client: Client, pod_id: str, wanted: Desired, patience: Patience, show: Show) -> wire.Pod:
    """The pod, as wanted. Raises `Failed` when it cannot become so, keeps failing, or time is up."""
    while True:
        left_s = patience.left_s
        try:
            pod = client.wait(pod_id, wanted, min(LOOK_S, left_s))
        except Failed as failed:
            if failed.code not in RETRYABLE or left_s <= PAUSE_S:
                raise
            time.sleep(PAUSE_S)
            continue
        show(pod)
        if is_reached(pod, wanted):
            return pod
        refuse_to_wait(pod, wanted)
        if left_s <= 0:
            raise _out_of_time(pod, wanted, patience)


def wait_settled(client: Client, pod_id: str, patience: Patience, show: Show) -> wire.Pod:
    """The pod, with nothing left to do. Raises `Failed` as `wait_for` does."""
    while True:
        pod = client.get(pod_id)
        show(pod)
        if pod.settled:
            return pod
        refuse_to_wait(pod, pod.desired)
        if patience.left_s <= 0:
            raise _out_of_time(pod, pod.desired, patience)
        time.sleep(PAUSE_S)


def wait_for_link(client: Client, pod_id: str, patience: Patience, show: Show) -> wire.OpenedPod:
    """The pod with its link. Raises `Failed` as `wait_for` does."""
    while True:
        left_s = patience.left_s
        pod = wait_for(client, pod_id, Desired.RUNNING, patience, show)
        opened = client.open(pod_id)
        if opened.url is not None:
            return opened
        if left_s <= 0:
            raise _out_of_time(pod, Desired.RUNNING, patience)
        time.sleep(PAUSE_S)


def refuse_to_wait(pod: wire.Pod, wanted: Desired) -> None:
    """Raise `Failed` when waiting any longer cannot be expected to help."""
    failure = pod.failure
    if pod.desired != wanted:
        raise Failed(
            "changed_meanwhile",
            f"{called(pod)}: somebody wants it {pod.desired} now.",
            "See `podctl events`.",
        )
    if failure and (is_hopeless(pod, wanted) or failure.count >= KEEPS_FAILING):
        times = "" if failure.permanent else f" {failure.count} times"
        raise Failed(
            failure.code,
            f"{called(pod)} is not {wanted}: {failure.verb} failed{times}: {failure.message}",
            _what_to_do(pod, wanted),
        )


def called(pod: wire.Pod) -> str:
    """What people call a pod."""
    return f"{pod.user}/{pod.name} ({pod.pod_id})"


def doing(pod: wire.Pod) -> str:
    """In one line, what is going on with a pod."""
    now = how_far(pod.progress) if pod.progress else pod.reason
    return f"{called(pod)}: {pod.state}" + (f", {now}" if now else "")


def how_far(progress: wire.Progress) -> str:
    """The phase of a step, how much of it is done, and how fast it goes on."""
    if not progress.done_bytes and not progress.total_bytes:
        return progress.phase
    total = f" of {progress.total_bytes / MIB:.1f}" if progress.total_bytes else ""
    rate = f", {progress.bytes_per_s / MIB:.1f} MiB/s" if progress.bytes_per_s is not None else ""
    return f"{progress.phase}, {progress.done_bytes / MIB:.1f}{total} MiB{rate}"


@contextmanager
def shown(console: Console) -> Iterator[Show]:
    """Progress on standard error: one changing line on a terminal, a line for each change elsewhere."""
    last = ""

    def show_line(pod: wire.Pod) -> None:
        nonlocal last
        line = plain(doing(pod))
        if line != last:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        last = line

    if not console.is_terminal:
        yield show_line
        return
    with console.status("") as status:
        yield lambda pod: status.update(Text(plain(doing(pod))))


def _what_to_do(pod: wire.Pod, wanted: Desired) -> str:
    more = f"`podctl explain {pod.pod_id}` tells more."
    if wanted is not Desired.RUNNING:
        return more
    return f"{more} Once it is put right, opening it again tries again at once."


def _out_of_time(pod: wire.Pod, wanted: Desired, patience: Patience) -> Failed:
    why = f": {pod.failure.message}" if pod.failure else (f": {pod.reason}" if pod.reason else "")
    return Failed(
        "timeout",
        f"{called(pod)} is {pod.state}, not {wanted}, after {patience.timeout_s:g} s{why}",
        f"It is still wanted {wanted}, and is worked on. `podctl explain {pod.pod_id}` tells more.",
    )
