"""Whether a pod is as waited for, or cannot become so. Pure; the API and `podctl` agree on it here."""

from api.wire import Pod
from state.model import Desired

AT_REST = frozenset({Desired.STOPPED, Desired.ARCHIVED})


def is_reached(pod: Pod, wanted: Desired) -> bool:
    """The pod is as wanted. One that was never started is as stopped and as archived as it can be."""
    if pod.state == wanted:
        return True
    never_started = pod.state == "absent" and pod.settled
    return wanted in AT_REST and pod.desired == wanted and never_started


def is_hopeless(pod: Pod, wanted: Desired) -> bool:
    """Waiting cannot help: something else is wanted of it, or somebody has to put it right."""
    return pod.desired != wanted or (pod.failure is not None and pod.failure.permanent)


def is_over(pod: Pod, wanted: Desired) -> bool:
    """Waiting for `wanted` has come to an end, good or bad."""
    return is_reached(pod, wanted) or is_hopeless(pod, wanted)
