"""What is coming for a pod that runs: when it will be stopped if nothing changes, and why."""

from dataclasses import dataclass
from datetime import datetime

from state.rows import Row


@dataclass(frozen=True, slots=True)
class Outlook:
    """As the policies saw it last. `warned`: whoever is there was told. Using the pod puts it off."""

    stops_at: datetime
    reason: str
    warned: bool
    can_extend: bool


def outlook_of(row: Row) -> Outlook | None:
    """From a row with the columns of `pod_policy`; None where nothing is coming."""
    if row["stops_at"] is None:
        return None
    return Outlook(
        stops_at=row["stops_at"],
        reason=row["stop_reason"] or "",
        warned=row["warned_at"] is not None,
        can_extend=row["can_extend"],
    )
