"""The JSON that the API speaks: what it takes and what it gives. Pure.

Handlers, `podctl` and the OpenAPI document all use these models, so none of them can say something else.
Requests refuse unknown fields; replies may grow new ones, so readers must ignore what they do not know.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.values import (
    CpuMillis,
    EventId,
    ExtensionSeconds,
    Generation,
    Image,
    Lab,
    Limit,
    MemoryMib,
    Name,
    NodeId,
    Pids,
    PodId,
    Reason,
    User,
    WaitSeconds,
)
from state.model import Desired

BODY_BYTES_MAX = 64 * 1024
PAGE_SIZE = 100
EVENTS_EXPLAINED = 20
DEFAULT_POD_NAME = "default"


class Scope(StrEnum):
    """What a token may do: `revpro` handles pods, `read` looks, `admin` may do everything."""

    REVPRO = "revpro"
    ADMIN = "admin"
    READ = "read"


class Request(BaseModel):
    """Base of what clients send: exact types, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Query(BaseModel):
    """Base of query parameters, which arrive as text. Nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reply(BaseModel):
    """Base of what the API gives. Clients ignore fields they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# ---- requests ------------------------------------------------------------------------------------------


class CreatePod(Request):
    """Create a pod, or open the one that the user already has under this name."""

    user: User
    name: Name | None = Field(
        default=None, description="Default: the lab's name if it has the shape of one, or `default`."
    )
    lab: Lab | None = None
    image: Image | None = Field(default=None, description="Default: the installation's pod image.")
    cpu_millis: CpuMillis | None = None
    memory_mib: MemoryMib | None = None
    pids: Pids | None = None
    desired: Literal[Desired.RUNNING, Desired.STOPPED, Desired.ARCHIVED] = Field(
        default=Desired.RUNNING, description="What is wanted of it, also when it exists already."
    )

    @property
    def pod_name(self) -> str:
        """The name asked for, or the one that follows from the lab."""
        if self.name is not None:
            return self.name
        return name_for_lab(self.lab) if self.lab is not None else DEFAULT_POD_NAME


def name_for_lab(lab: str) -> str:
    """The lab's name as a pod's name: lower case, other characters as dashes, cut to 40."""
    return re.sub(r"[^a-z0-9]+", "-", lab.lower())[:40].strip("-") or DEFAULT_POD_NAME


class SetDesiredState(Request):
    """What is wanted of a pod from now on."""

    state: Desired
    reason: Reason | None = None
    if_generation: Generation | None = Field(
        default=None, description="Refuse unless the pod is still at this generation."
    )


class ExtendPod(Request):
    """Until when to keep a pod from being stopped for want of use: one of the two."""

    seconds: ExtensionSeconds | None = Field(default=None, description="So long from now.")
    until: datetime | None = Field(default=None, description="A time with its zone, as 2026-09-01T12:00:00Z.")


class SetCordoned(Request):
    """Whether new placements are kept off a node."""

    cordoned: bool


class DeclareLost(Request):
    """A person's word that a silent node is gone for good."""

    reason: str = Field(min_length=1, max_length=500, description="Why you are sure.")


class NoQuery(Query):
    """No query parameters."""


class ListPodsQuery(Query):
    """Which pods to list."""

    user: User | None = None
    after: PodId | None = Field(
        default=None, description="Give the pods after this id: `next` of the page before."
    )
    limit: Limit = PAGE_SIZE


class GetPodQuery(Query):
    """Whether to wait for a state."""

    wait_for: Desired | None = Field(
        default=None, description="Answer when the pod is so, cannot become so, or `timeout_s` have passed."
    )
    timeout_s: WaitSeconds = Field(default=20.0, description="How long to wait at most, seconds.")


class OpenPodQuery(Query):
    """Whether to wait until the pod runs."""

    wait_s: WaitSeconds = Field(default=0.0, description="How long to wait for the link at most, seconds.")
    reuse: Literal["any", "browser", "once"] | None = Field(
        default=None,
        description="How often the link opens: until it expires, in the browser that is first, once.",
    )


class PodEventsQuery(Query):
    """Which part of the history to give."""

    after: EventId = Field(default=0, description="Give the events after this id.")
    limit: Limit = PAGE_SIZE


class EventsQuery(PodEventsQuery):
    """Which part of whose history to give."""

    user: User | None = None
    node: NodeId | None = None


# ---- replies -------------------------------------------------------------------------------------------


class Failure(Reply):
    """The last failed step towards what is wanted now."""

    verb: str
    code: str
    message: str
    count: int
    permanent: bool = Field(description="Trying again cannot help until the pod is changed.")
    retry_at: datetime


class Archive(Reply):
    """The newest archive of the pod."""

    archive_id: str
    number: int
    size_bytes: int | None = None
    committed_at: datetime


class Progress(Reply):
    """How far the step under way is."""

    phase: str
    done_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_s: int | None = Field(None, description="Over the last seconds, where it is known.")


class Stops(Reply):
    """What is coming for a pod that runs. Whoever uses it puts it off."""

    at: datetime = Field(description="When it will be stopped if nothing changes.")
    reason: str = Field(description="Why it will have been stopped then.")
    warned: bool = Field(description="It is near, and whoever is in the pod has been told.")
    can_extend: bool = Field(description="`:extend` puts it off.")


class Pod(Reply):
    """One pod: what is wanted, what is, and why they differ."""

    pod_id: str
    user: str
    name: str
    image: str
    lab: str | None
    cpu_millis: int
    memory_mib: int
    pids: int
    desired: Desired
    state: str = Field(
        description="What is: absent, restoring, creating, starting, running, stopping, stopped, archiving,"
        " archived, failed, deleted, or unknown while its node is silent."
    )
    generation: int
    settled: bool = Field(description="Nothing is left to do for this generation.")
    node: str | None
    since: datetime | None
    condition: str | None
    reason: str | None
    failure: Failure | None
    archive: Archive | None
    progress: Progress | None
    created_at: datetime
    stops: Stops | None = Field(default=None, description="Null while nothing is coming.")


class Post(Reply):
    """A form that a page posts: its address, and its fields by name."""

    action: str
    fields: dict[str, str]


class OpenedPod(Reply):
    """A pod on its way to a browser."""

    pod_id: str
    state: str
    url: str | None = Field(
        description="The link, when the pod runs. It opens for minutes only: do not keep it."
    )
    post: Post | None = Field(
        description="The same for a page that posts it: no address, so no browser's history, holds the token."
    )
    expires_at: datetime | None = Field(description="Until when either opens.")
    pod: Pod


class PodList(Reply):
    """One page of pods, in the order of their ids."""

    pods: list[Pod]
    next: str | None = Field(description="`after` of the next page; null on the last one.")


class Event(Reply):
    """One change: who or what changed what, from, to, why."""

    event_id: int
    at: datetime
    actor: str
    kind: str
    pod_id: str | None
    workspace_id: str | None
    node_id: str | None
    from_value: str | None
    to_value: str | None
    reason: str | None
    detail: dict[str, Any] | None


class EventList(Reply):
    """One page of events, oldest first."""

    events: list[Event]
    next: int | None = Field(description="`after` of the next page; null on the last one.")


class Node(Reply):
    """One node: what it has and whether it is heard from."""

    node_id: str
    address: str | None
    alive: bool = Field(description="Heard from lately.")
    lost: bool = Field(description="Declared lost, and not heard from since.")
    last_seen_at: datetime | None
    cordoned: bool
    cpu_millis: int
    memory_mib: int
    pods: int
    engine_error: str | None


class NodeList(Reply):
    """All nodes."""

    nodes: list[Node]


class OpenStep(Reply):
    """The step a node has in hand for a pod."""

    verb: str
    node: str
    since: datetime
    progress: Progress | None


class Alarm(Reply):
    """Something that somebody should look at, until it is over."""

    kind: str
    subject: str
    pod_id: str | None
    workspace_id: str | None
    message: str
    raised_at: datetime


class Explanation(Reply):
    """Why a pod is as it is, and what it waits for."""

    pod: Pod
    waiting_for: str = Field(description="In one sentence.")
    step: OpenStep | None
    alarms: list[Alarm] = Field(default=[], description="What somebody should look at.")
    events: list[Event] = Field(description=f"The newest {EVENTS_EXPLAINED}, newest last.")


class Health(Reply):
    """The program answers."""

    status: Literal["ok"] = "ok"


class FieldProblem(Reply):
    """One thing wrong with a request."""

    field: str
    problem: str


class Problem(Reply):
    """What went wrong (RFC 9457), what it means and what to do. `code` is stable: docs/api.md lists them."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str
    instance: str
    errors: list[FieldProblem] | None = None
