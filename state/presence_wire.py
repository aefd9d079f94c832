"""Who is there, as nodes and the gateway speak of it: optional fields of a sync, carried by `state.wire`.

Times are told as ages, so that no two clocks have to agree. Presence is not part of the report: it changes
far more often than what a report says, and nothing is concluded from its absence.
"""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PODS_PER_PRESENCE_MAX = 2000
AGE_S_MAX = 366 * 86_400.0
WORDS_CHARS_MAX = 200

AgeS = Annotated[float, Field(ge=0, le=AGE_S_MAX, allow_inf_nan=False)]
COUNT_MAX = 1_000_000
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]


class _Message(BaseModel):
    """Immutable, tolerant of fields from a newer version, as all of `state.wire`."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class PodPresence(_Message):
    """One look at who is in a running pod.

    `started_at` names the start that all of it is about, in the report's words; `age_s` is how old the look
    is. Ages that are None are of what was not seen since that start, or cannot be seen: without our extension
    in the editor nobody knows of `active_age_s`.
    """

    pod_id: str
    epoch: int
    started_at: datetime
    age_s: AgeS = 0.0
    # Connections to the IDE from outside the pod: a tab has two.
    connections: Count = 0
    # Since when it has been as it is: with connections, or without.
    connected_for_s: AgeS | None = None
    gone_for_s: AgeS | None = None
    # code-server's own last beat: anybody's request, to the minute.
    heartbeat_age_s: AgeS | None = None
    # A person's last sign in an editor: a key, a click, a window brought to the front.
    active_age_s: AgeS | None = None
    # Work under way or lately so; 0 while it is.
    busy_age_s: AgeS | None = None
    busy_with: Annotated[str, Field(max_length=WORDS_CHARS_MAX)] = ""
    cpu_millis: Count = 0
    # What somebody in the editor answered to: the id of the warning.
    keep: Annotated[str, Field(max_length=WORDS_CHARS_MAX)] | None = None


class PresenceUp(_Message):
    """A node's looks. Pods that are left out were not looked at, or nothing of them has changed."""

    pods: Annotated[tuple[PodPresence, ...], Field(max_length=PODS_PER_PRESENCE_MAX)] = ()


class PodWarning(_Message):
    """A pod is about to be stopped. `id` is new for each deadline; an answer names it."""

    pod_id: str
    epoch: int
    id: str
    stops_in_s: float
    why: str
    # Whether whoever is there can put it off.
    can_extend: bool = True


class PresenceDown(_Message):
    """What the node should look at now, and what to tell in its editors."""

    look_at: Annotated[tuple[str, ...], Field(max_length=PODS_PER_PRESENCE_MAX)] = ()
    # All warnings of the node; None from a gateway that has none to tell of, ever.
    warnings: Annotated[tuple[PodWarning, ...], Field(max_length=PODS_PER_PRESENCE_MAX)] | None = None
