"""Which changes of state there are, and the one cause that each may have. Pure.

The table is total: every ordered pair of two different states has exactly one cause. What is not the work of
one of our programs falls to `Cause.OUTSIDE`: somebody used the engine by hand, or two reports were too far
apart to show the steps between. Nothing is decided by this table (LAW 1); it says what is normal.
"""

from collections.abc import Mapping
from enum import StrEnum
from itertools import permutations
from types import MappingProxyType

from state.model import Desired, Observed, Verb


class Cause(StrEnum):
    """What makes a pod go from one observed state to another."""

    CREATE = Verb.CREATE_POD
    RESTORE = Verb.RESTORE_POD
    START = Verb.START_POD
    STOP = Verb.STOP_POD
    ARCHIVE = Verb.ARCHIVE_POD
    REMOVE = Verb.REMOVE_POD
    POD = "pod"  # its own process exited, or answers again
    SILENCE = "silence"  # its node was not heard for too long
    REPORT = "report"  # its node is heard again
    OUTSIDE = "outside"


class Program(StrEnum):
    """Who does it."""

    NODE_AGENT = "node_agent"
    POD = "pod"
    RECONCILER = "reconciler"
    NOBODY_OF_OURS = "nobody of ours"


PROGRAM_OF: Mapping[Cause, Program] = MappingProxyType(
    {
        **{Cause(verb): Program.NODE_AGENT for verb in Verb if verb.endswith("_pod")},
        Cause.POD: Program.POD,
        Cause.SILENCE: Program.RECONCILER,
        Cause.REPORT: Program.NODE_AGENT,
        Cause.OUTSIDE: Program.NOBODY_OF_OURS,
    }
)

_ABSENT, _RESTORING, _CREATING, _STARTING, _RUNNING, _STOPPING, _STOPPED, _ARCHIVING, _FAILED, _UNKNOWN = (
    Observed
)

_BY_STEPS: Mapping[tuple[Observed, Observed], Cause] = {
    (_ABSENT, _CREATING): Cause.CREATE,
    (_CREATING, _STOPPED): Cause.CREATE,
    (_CREATING, _ABSENT): Cause.CREATE,  # it failed, and cleaned up
    (_ABSENT, _RESTORING): Cause.RESTORE,
    (_RESTORING, _STOPPED): Cause.RESTORE,
    (_RESTORING, _ABSENT): Cause.RESTORE,  # it failed, and cleaned up
    (_STOPPED, _STARTING): Cause.START,
    (_FAILED, _STARTING): Cause.START,
    (_STARTING, _RUNNING): Cause.START,
    (_STARTING, _FAILED): Cause.START,  # it runs, and does not answer in time
    (_STARTING, _STOPPED): Cause.START,  # it exited instead
    (_RUNNING, _STOPPING): Cause.STOP,
    (_STARTING, _STOPPING): Cause.STOP,
    (_FAILED, _STOPPING): Cause.STOP,
    (_STOPPING, _STOPPED): Cause.STOP,
    (_STOPPING, _RUNNING): Cause.STOP,  # taken back before it began
    (_STOPPED, _ARCHIVING): Cause.ARCHIVE,
    (_ARCHIVING, _STOPPED): Cause.ARCHIVE,
    (_STOPPED, _ABSENT): Cause.REMOVE,
    (_STOPPED, _FAILED): Cause.REMOVE,  # the engine could not take all of it away
    (_FAILED, _ABSENT): Cause.REMOVE,
    (_RUNNING, _STOPPED): Cause.POD,
    (_FAILED, _STOPPED): Cause.POD,
    (_FAILED, _RUNNING): Cause.POD,  # it answers after all
    (_RUNNING, _FAILED): Cause.POD,
    (_RUNNING, _STARTING): Cause.POD,  # it restarts, or the agent did and has to ask it again
}


def _cause(before: Observed, after: Observed) -> Cause:
    if after is Observed.UNKNOWN:
        return Cause.SILENCE
    if before is Observed.UNKNOWN:
        return Cause.REPORT
    return _BY_STEPS.get((before, after), Cause.OUTSIDE)


TRANSITIONS: Mapping[tuple[Observed, Observed], Cause] = MappingProxyType(
    {(before, after): _cause(before, after) for before, after in permutations(Observed, 2)}
)


def may_become(before: Desired, after: Desired) -> bool:
    """Whether what is desired of a pod may change so: from anything to anything, but never out of `deleted`.

    The database's trigger refuses the same; a test holds the two together.
    """
    return before is not Desired.DELETED or after is Desired.DELETED
