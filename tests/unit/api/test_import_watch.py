"""When an import is given up: its node has gone, and with it what was sent."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from api.import_watch import TAKE_OVER_S, ImportWatch
from api.problems import ProblemError
from state.chores import ChoreStatus
from state.model import ChoreState

MADE = ChoreStatus(
    id="c",
    kind="import_files",
    subject="p-1",
    pod_id="p-1",
    workspace_id="w-1",
    state=ChoreState.WAITING,
    attempt=0,
    failures=0,
    node_id=None,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    given_at=None,
    finished_at=None,
    progress=None,
    result=None,
    error=None,
)
GIVEN = replace(MADE, state=ChoreState.GIVEN, attempt=1, node_id="node-1")
READING = replace(GIVEN, progress={"phase": "receiving"})
LEFT = replace(GIVEN, state=ChoreState.WAITING)
TAKEN_OVER = replace(GIVEN, attempt=2, node_id="node-2")


def seen(*looks: ChoreStatus) -> ImportWatch:
    """A second between each."""
    watch = ImportWatch()
    for now_s, look in enumerate(looks):
        watch.see(look, float(now_s))
    return watch


def test_what_its_node_goes_on_with_is_waited_for() -> None:
    """However long it takes; also before any node has it."""
    seen(MADE, *[MADE] * 100, GIVEN, *[READING] * 1000, replace(READING, state=ChoreState.DONE))


@pytest.mark.parametrize("after", [LEFT, TAKEN_OVER])
def test_who_began_to_read_and_left_is_told_at_once(after: ChoreStatus) -> None:
    """Whether another node was given it meanwhile or not: what was sent is gone."""
    with pytest.raises(ProblemError, match="node-1 has not been heard of any more") as told:
        seen(GIVEN, READING, after)
    assert told.value.code == "import_cut"


def test_all_was_read_between_two_looks() -> None:
    """The gateway says so: a reader that nobody saw at work has begun as well."""
    watch = seen(MADE)
    watch.has_begun = True
    watch.see(GIVEN, 1.0)
    with pytest.raises(ProblemError, match="node-1"):
        watch.see(LEFT, 2.0)


def test_another_node_may_take_what_none_has_begun_to_read() -> None:
    """Within a while; then it is told."""
    seen(GIVEN, LEFT, LEFT, TAKEN_OVER, READING)
    with pytest.raises(ProblemError, match="node-1"):
        seen(GIVEN, *[LEFT] * (int(TAKE_OVER_S) + 3))


def test_what_the_node_said_of_its_failure_is_told() -> None:
    """It would try again, with nothing to read."""
    failed = replace(LEFT, error={"code": "store_unavailable", "message": "The store is away."})
    with pytest.raises(ProblemError, match=r"could not go on: The store is away\."):
        seen(READING, failed)
