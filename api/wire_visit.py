"""What the start page asks and is told. Pure; part of the wire, see `api.wire`."""

from enum import StrEnum

from pydantic import Field

from api.wire import Progress, Query, Reply


class Stage(StrEnum):
    """What the start page does next: go in, look again, offer to wake, offer another try, or nothing."""

    READY = "ready"
    COMING = "coming"
    ASLEEP = "asleep"
    STUCK = "stuck"
    GONE = "gone"


class Visit(Reply):
    """How a pod is getting on, in words for whoever waits for it."""

    stage: Stage
    state: str
    condition: str | None
    headline: str
    detail: str
    progress: Progress | None
    ahead: int | None = Field(
        description="How many pods have waited for room, or for a turn, for longer; 101: more than 100."
    )


class Entered(Reply):
    """The way into the pod; browsers follow the `Location` header."""

    url: str = Field(description="Relative to the address that was asked.")


# Printable, below the pod's own address: it cannot lead to another host, nor end the header it is put into.
_BELOW = r"^[!\"$-.0-\[\]-~][!\"$-\[\]-~]*$"


class EnterQuery(Query):
    """Where in the pod to go."""

    to: str | None = Field(
        default=None,
        max_length=1500,
        pattern=_BELOW,
        description="Path and query below the pod's address; default: the folder that links open.",
    )


class WakeQuery(Query):
    """How much is asked for."""

    again: bool = Field(default=False, description="Somebody pressed the button: try anew after a failure.")
