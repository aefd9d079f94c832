"""What the simulated database and gateway tell the oracle, at the moment when it is so."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from state.lifecycle import PodLife, Verdict
from state.model import ArchiveRef, Observed, Placement
from state.plan import Abandon, Place, Plan, PlannedStep, Release
from state.presence_wire import PodPresence
from state.wire import SyncRequest
from tests.sim.rows import ActionRow, PodRow, WorkspaceRow


class Watch:
    """Hears of everything, and minds nothing; the oracle overrides what it judges."""

    def __init__(self) -> None:
        # When each node was looked at for the newest report that was believed of it.
        self.believed_s: dict[str, float] = {}
        # The same, as it was when the world was read for the plan that is being written down.
        self.basis: Mapping[str, float] = {}

    def planned(self, plan: Plan) -> None:
        """A plan is about to be written down."""

    def placed(self, line: Place) -> None:
        """A workspace has been placed."""

    def parked(self, workspace_id: str) -> None:
        """A workspace is about to be set aside."""

    def released(self, line: Release) -> None:
        """A placement has just been freed."""

    def given_up(self, line: Abandon) -> None:
        """A placement on a silent node has just been ended without the node's word."""

    def taken_over(self, workspace_id: str, placement: Placement) -> None:
        """A placement that the database had forgotten has been written down."""

    def gave_way(self, workspace_id: str) -> None:
        """A placement has been ended, for its node has seen a later one."""

    def enqueued(self, step: PlannedStep) -> None:
        """A step has been enqueued."""

    def given(self, row: ActionRow) -> None:
        """A node has been handed an action."""

    def answered(self, row: ActionRow, *, failed: bool, race: bool) -> None:
        """An action's node has answered."""

    def heard(self, request: SyncRequest) -> None:
        """A node's message was taken in as its newest."""

    def moved(self, pod: PodRow, node_id: str, epoch: int, before: Observed, after: Observed) -> None:
        """A pod's reported state has changed."""

    def saw(self, pod_id: str, said: PodPresence) -> None:
        """A look at who is in a pod has been taken in."""

    def wishes(self, life: PodLife, verdict: Verdict) -> None:
        """A policy is about to wish something of a pod."""

    def warned(self, life: PodLife, verdict: Verdict) -> None:
        """A policy has had a pod's editors warned."""

    def goes_back(self, owner: PodRow | WorkspaceRow, archive: ArchiveRef) -> None:
        """A pod or a user's files are about to go back to this archive, because somebody asked."""

    def read_whole(self, manifest_key: str, asked_at: datetime) -> None:
        """Somebody was asked to read an archive back, and says that it is whole."""

    def vanished(self, pod_ids: Iterable[str | None]) -> None:
        """It has been told that these are gone, and that nobody ordered it."""
