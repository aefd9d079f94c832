"""Chores as nodes and the gateway speak of them: the optional fields of a sync that `state.wire` carries.

A chore is work on the store that belongs to no placement. Whoever names the chore's kind may be given it, so
a node of an older version is never given what it does not know. Requests and results are plain JSON objects;
each kind reads its own strictly.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

CHORES_PER_SYNC_MAX = 50
CHORE_MESSAGE_LENGTH_MAX = 2000

Payload = dict[str, Any]


class _Message(BaseModel):
    """Immutable, tolerant of fields from a newer version, as all of `state.wire`."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ChoreHandle(_Message):
    """One giving-out of a chore. A later one of the same chore has a higher attempt, and voids this."""

    id: str
    attempt: int


class Chore(ChoreHandle):
    """A chore given to a node. `age_s` says how old the request is, by the database's clock."""

    kind: str
    subject: str
    request: Payload = Field(default_factory=dict)
    age_s: float = 0.0

    @property
    def handle(self) -> ChoreHandle:
        """Which giving-out this is."""
        return ChoreHandle(id=self.id, attempt=self.attempt)


class ChoreDone(_Message):
    """It is done; `result` is as its kind has it."""

    outcome: Literal["done"] = "done"
    chore: ChoreHandle
    result: Payload = Field(default_factory=dict)


class ChoreFailed(_Message):
    """It could not be done. `permanent`: trying again cannot help; `detail` is as the kind has it."""

    outcome: Literal["failed"] = "failed"
    chore: ChoreHandle
    code: str
    message: Annotated[str, Field(max_length=CHORE_MESSAGE_LENGTH_MAX)]
    permanent: bool = False
    detail: Payload = Field(default_factory=dict)


ChoreResult = Annotated[ChoreDone | ChoreFailed, Field(discriminator="outcome")]


class ChoreProgress(_Message):
    """How far a chore is, for people who wait."""

    chore: ChoreHandle
    phase: str
    done_bytes: int = 0
    total_bytes: int | None = None


class ChoresUp(_Message):
    """A node's half: which kinds it does, how many more it would take, what it has, what became of others."""

    kinds: tuple[str, ...] = ()
    wanted: Annotated[int, Field(ge=0)] = 0
    held: Annotated[tuple[ChoreHandle, ...], Field(max_length=CHORES_PER_SYNC_MAX)] = ()
    results: Annotated[tuple[ChoreResult, ...], Field(max_length=CHORES_PER_SYNC_MAX)] = ()
    progress: Annotated[tuple[ChoreProgress, ...], Field(max_length=CHORES_PER_SYNC_MAX)] = ()


class ChoresDown(_Message):
    """The gateway's half.

    New ones, those of `held` that are not the node's any more, results that are kept.
    """

    given: tuple[Chore, ...] = ()
    dropped: tuple[ChoreHandle, ...] = ()
    accepted: tuple[ChoreHandle, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.given or self.dropped or self.accepted)
