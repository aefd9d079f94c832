"""What the start page says of a pod, to a learner. Pure; operators read `views.waiting_for` instead."""

from collections.abc import Mapping

from api import views
from api.wire_visit import Stage, Visit
from state.model import Desired
from state.plan import Condition
from state.pods import PodStatus
from state.queue import AHEAD_MAX

Words = tuple[str, str]

_SAFE = "Nothing of your work is lost."

# What holds a pod up, whatever it is on its way to.
_HELD_UP: Mapping[str, Words] = {
    Condition.NODE_SILENT: (
        "The machine your pod is on does not answer",
        f"It is being looked for. Your pod goes on as soon as it answers. {_SAFE}",
    ),
    Condition.ENGINE_AWAY: (
        "The machine your pod is on cannot start pods right now",
        f"Your pod goes on as soon as it can. {_SAFE}",
    ),
    Condition.WAITING_FOR_CAPACITY: (
        "All machines are full",
        "Your pod starts by itself as soon as there is room. You can leave this page open.",
    ),
    Condition.WAITING_FOR_TURN: (
        "Your pod is in the queue",
        "Many pods are starting at once. Yours starts by itself when its turn comes.",
    ),
    Condition.WAITING_FOR_WORKSPACE: (
        "Your files are being made ready",
        "Your pod starts as soon as they are here.",
    ),
}

# What a pod that is wanted is doing, by what its node sees of it.
_ON_ITS_WAY: Mapping[str, Words] = {
    "absent": ("Your pod is being made", "The first start takes a few seconds."),
    "archived": ("Your pod comes back from the archive", "Everything in it comes back as you left it."),
    "restoring": ("Your pod comes back from the archive", "Everything in it comes back as you left it."),
    "creating": ("Your pod is being made", "The first start takes a few seconds."),
    "stopping": ("Your pod is being stopped", "It starts again right after that."),
    "archiving": ("Your pod is being saved", "It starts again right after that."),
    "unknown": _HELD_UP[Condition.NODE_SILENT],
}
_STARTING: Words = ("Your pod is starting", "This takes a few seconds.")


def of(status: PodStatus, ahead: int | None = None) -> Visit:
    """What to show and do for this pod; `ahead`: how many have waited for room or a turn for longer."""
    stage = _stage(status)
    headline, detail = _words(status, stage)
    if stage is not Stage.COMING:
        ahead = None
    shown = views.pod(status)
    return Visit(
        stage=stage,
        state=status.actual,
        condition=status.condition,
        headline=headline,
        detail=detail if ahead is None else f"{detail} {_place(ahead)}",
        progress=shown.progress if stage is not Stage.READY else None,
        ahead=ahead,
    )


def _place(ahead: int) -> str:
    if ahead == 0:
        return "It has waited longest."
    if ahead == 1:
        return "One other has waited longer."
    return f"{'More than 100' if ahead > AHEAD_MAX else ahead} others have waited longer."


def is_asleep(status: PodStatus) -> bool:
    """It is at rest, or on its way there, because that is what is wanted; a visit may change it."""
    return status.desired in (Desired.STOPPED, Desired.ARCHIVED)


def _stage(status: PodStatus) -> Stage:
    if status.desired is Desired.DELETED:
        return Stage.GONE
    if is_asleep(status):
        return Stage.ASLEEP
    if status.actual == "running":
        return Stage.READY
    if status.failure is not None and status.failure.permanent:
        return Stage.STUCK
    return Stage.COMING


def _words(status: PodStatus, stage: Stage) -> Words:
    if stage is Stage.GONE:
        return "This pod was deleted", "Open another one from your course page. Your files are still there."
    if stage is Stage.ASLEEP:
        return _sleeping(status)
    if stage is Stage.READY:
        return "Your pod is running", "One moment, it opens."
    if stage is Stage.STUCK:
        code = status.failure.code if status.failure else ""
        return "Your pod could not be started", f"Tell who runs your course: {code}. {_SAFE}"
    return _coming(status)


def _sleeping(status: PodStatus) -> Words:
    if status.actual == "archived":
        return "Your pod is in the archive", "It comes back with everything in it, which may take a little."
    return "Your pod is asleep", f"It was put to rest to save power. {_SAFE}"


def _coming(status: PodStatus) -> Words:
    held_up = _HELD_UP.get(status.condition or "")
    if held_up is not None:
        return held_up
    if status.failure is not None:
        return (
            "Your pod did not start at the first try",
            f"It is tried again by itself ({status.failure.code}). {_SAFE}",
        )
    return _ON_ITS_WAY.get(status.actual, _STARTING)
