"""What a report changes: pure comparison of what a node says with what was known.

A container counts when its pod exists and its node and epoch are those of the live placement. Every other one
is told of once and left alone: nothing is ever removed for being unknown or out of place (LAW 9).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from state.model import Desired, Observed, Verb, WorkspaceObserved
from state.rows import Row
from state.wire import PodReport, Report, WorkspaceReport

# Of several containers of one pod at one epoch, the one that is most alive stands for it.
_LIVELINESS = {Observed.RUNNING: 3, Observed.STARTING: 2, Observed.STOPPING: 2, Observed.STOPPED: 1}

# States in which the user's files were in the container: if it is gone from one of these, they went with it.
_HELD_FILES = frozenset(
    {
        Observed.RUNNING,
        Observed.STARTING,
        Observed.STOPPING,
        Observed.STOPPED,
        Observed.ARCHIVING,
        # The engine says so, too, of what is just being removed.
        Observed.FAILED,
    }
)

_ENDED = frozenset({Observed.STOPPED, Observed.FAILED})
_STOPPING_VERBS = frozenset({Verb.STOP_POD, Verb.ARCHIVE_POD, Verb.REMOVE_POD})

_POD_FIELDS = (
    "epoch",
    "generation",
    "state",
    "container_id",
    "image_id",
    "upstream",
    "session_secret",
    "fingerprint",
    "started_at",
    "exit_code",
    "oom_killed",
    "self_fence_s",
)
_WORKSPACE_FIELDS = ("epoch", "state", "volume", "fingerprint")


@dataclass(frozen=True, slots=True)
class Exit:
    """A pod that was wanted running has exited by itself. `healthy`: it had run long enough before."""

    pod: PodReport
    healthy: bool


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something on a node that nobody ordered, or that vanished without an order. Told once, left alone."""

    kind: str
    subject: str
    reason: str
    pod_id: str | None = None
    workspace_id: str | None = None

    @property
    def key(self) -> str:
        """What it is told once by."""
        return f"{self.kind}:{self.subject}"


@dataclass(slots=True)
class Comparison:
    """What to write for a report. Ids are of pods and workspaces; `present` is told of while it lasts."""

    pods: list[PodReport] = field(default_factory=list)
    absent_pods: list[str] = field(default_factory=list)
    pins: dict[str, str] = field(default_factory=dict)
    exits: list[Exit] = field(default_factory=list)
    workspaces: list[WorkspaceReport] = field(default_factory=list)
    absent_workspaces: list[str] = field(default_factory=list)
    vanished: list[Oddity] = field(default_factory=list)
    present: list[Oddity] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knew before the report, by id: see the queries of `state.reports`.

    `closed` are the ids of the actions that the same request says are done.
    """

    node_id: str
    pods: Mapping[str, Row]
    workspaces: Mapping[str, Row]
    closed: frozenset[str]
    healthy_after: timedelta


def compare(known: Known, report: Report) -> Comparison:
    """What `report` changes of what was `known`."""
    result = Comparison()
    _compare_pods(known, report.pods, result)
    _compare_workspaces(known, report.workspaces, result)
    result.present.extend(
        Oddity("unknown_container", strange.container_id or strange.name, f"{strange.name}: {strange.why}")
        for strange in report.strange
    )
    return result


# ---- pods ----------------------------------------------------------------------------------------------


def _compare_pods(known: Known, reports: Sequence[PodReport], result: Comparison) -> None:
    result.present.extend(_odd_pods(known, reports))
    current = _current_pods(known, reports)
    for pod_id, report in current.items():
        row = known.pods[pod_id]
        if row["pinned_image_id"] is None and report.image_id:
            result.pins[pod_id] = report.image_id
        if not _differs(row, report, _POD_FIELDS):
            continue
        result.pods.append(report)
        if _has_exited(known, row, report):
            healthy = _was(row, Observed.RUNNING) and row["state_for"] >= known.healthy_after
            result.exits.append(Exit(report, healthy))
    for pod_id, row in known.pods.items():
        if row["observed_node_id"] == known.node_id and row["state"] != "absent" and pod_id not in current:
            result.absent_pods.append(pod_id)
            result.vanished.extend(_vanished_pod(row))


def _odd_pods(known: Known, reports: Iterable[PodReport]) -> Iterable[Oddity]:
    for report in reports:
        row = known.pods.get(report.pod_id)
        if row is None:
            reason = f"no pod {report.pod_id} is known here; the container is kept and left alone"
            yield Oddity("unknown_container", report.container_id, reason)
        elif not _is_live(known, row, report.epoch):
            reason = (
                f"a container of epoch {report.epoch} is still there, and the pod is placed elsewhere or"
                " anew; it is kept and left alone"
            )
            yield Oddity("stale_container", report.container_id, reason, report.pod_id, report.workspace_id)


def _current_pods(known: Known, reports: Iterable[PodReport]) -> dict[str, PodReport]:
    current: dict[str, PodReport] = {}
    for report in reports:
        row = known.pods.get(report.pod_id)
        if row is None or not _is_live(known, row, report.epoch):
            continue
        rival = current.get(report.pod_id)
        if rival is None or _standing(report) > _standing(rival):
            current[report.pod_id] = report
    return current


def _standing(report: PodReport) -> tuple[int, str]:
    return _LIVELINESS.get(report.state, 0), report.container_id


def _has_exited(known: Known, row: Row, report: PodReport) -> bool:
    """It ran since it was last seen, runs no more, and nobody asked for that."""
    if report.state not in _ENDED or row["desired_state"] != Desired.RUNNING:
        return False
    restarted = report.started_at is not None and report.started_at != _before(row, "started_at")
    if not (_was(row, Observed.RUNNING) or restarted) or row["stop_taken_back"]:
        return False
    if row["open_id"] is None:
        return True
    # A start that is still under way, or has failed, tells of its own end.
    return row["open_verb"] not in _STOPPING_VERBS and row["open_id"] in known.closed


def _vanished_pod(row: Row) -> Iterable[Oddity]:
    held = Observed(row["state"]) in _HELD_FILES and row["epoch"] == row["live_epoch"]
    if held and row["open_verb"] != Verb.REMOVE_POD:
        reason = f"the container was {row['state']} and is gone, and codepods did not remove it"
        subject = row["container_id"] or row["id"]
        yield Oddity("container_vanished", subject, reason, row["id"], row["workspace_id"])


# ---- workspaces ----------------------------------------------------------------------------------------


def _compare_workspaces(known: Known, reports: Sequence[WorkspaceReport], result: Comparison) -> None:
    seen: set[str] = set()
    for report in reports:
        row = known.workspaces.get(report.workspace_id)
        if row is None:
            reason = f"no workspace {report.workspace_id} is known here; the volume is kept and left alone"
            result.present.append(Oddity("unknown_volume", report.volume, reason))
        elif not _is_live(known, row, report.epoch):
            reason = f"a volume of epoch {report.epoch} is still there; it is kept and left alone"
            oddity = Oddity("stale_volume", report.volume, reason, workspace_id=report.workspace_id)
            result.present.append(oddity)
        else:
            seen.add(report.workspace_id)
            if _differs(row, report, _WORKSPACE_FIELDS):
                result.workspaces.append(report)
    for workspace_id, row in known.workspaces.items():
        here = row["observed_node_id"] == known.node_id and row["state"] != "absent"
        if here and workspace_id not in seen:
            result.absent_workspaces.append(workspace_id)
            result.vanished.extend(_vanished_volume(row))


def _vanished_volume(row: Row) -> Iterable[Oddity]:
    held = row["state"] == WorkspaceObserved.PRESENT and row["epoch"] == row["live_epoch"]
    if held and row["open_verb"] != Verb.REMOVE_WORKSPACE:
        reason = "the user's volume was there and is gone, and codepods did not remove it"
        subject = row["volume"] or row["id"]
        yield Oddity("volume_vanished", subject, reason, workspace_id=row["id"])


# ---- both ----------------------------------------------------------------------------------------------


def _is_live(known: Known, row: Row, epoch: int) -> bool:
    return (row["live_node_id"], row["live_epoch"]) == (known.node_id, epoch)


def _before(row: Row, column: str) -> object:
    """What was observed before at the live placement; None when nothing was."""
    same = row["observed_node_id"] == row["live_node_id"] and row["epoch"] == row["live_epoch"]
    return row[column] if same else None


def _was(row: Row, state: Observed) -> bool:
    return _before(row, "state") == state


def _differs(row: Row, report: PodReport | WorkspaceReport, columns: Iterable[str]) -> bool:
    if row["observed_node_id"] != row["live_node_id"]:
        return True
    return any(row[column] != getattr(report, column) for column in columns)
