"""Whether an import can still come to its end, while a node reads what is sent. Pure."""

from api.problems import ProblemError
from state.chores import ChoreStatus
from state.model import ChoreState

# An import that its node has left before it began to read waits so long for another node.
TAKE_OVER_S = 8.0
UNCHANGED = (
    "The pod and its user's files are as they were; what was begun is no archive, and is cleared away."
)


class ImportWatch:
    """Over one import. What a node has read of it is gone with the node: no other can go on."""

    def __init__(self) -> None:
        self.has_begun = False
        self._reader: tuple[int, str] | None = None
        self._left_at_s: float | None = None

    def see(self, chore: ChoreStatus | None, now_s: float) -> None:
        """Raises ProblemError(`import_cut`) when the reader has gone, and nobody can take its place."""
        if chore is None or chore.attempt == 0:
            return
        here = (chore.attempt, chore.node_id or "")
        is_other = self.has_begun and self._reader not in (None, here)
        if chore.state is not ChoreState.WAITING and not is_other:
            self._left_at_s, self._reader = None, here
            self.has_begun = self.has_begun or chore.progress is not None
            return
        self._left_at_s = now_s if self._left_at_s is None else self._left_at_s
        if self.has_begun or now_s - self._left_at_s > TAKE_OVER_S:
            raise ProblemError("import_cut", _told(chore, (self._reader or here)[1]))


def _told(chore: ChoreStatus, node_id: str) -> str:
    why = str((chore.error or {}).get("message", ""))
    said = f"could not go on: {why}" if why else "has not been heard of any more"
    return f"The node {node_id} {said} while it took in what was sent. {UNCHANGED}"
