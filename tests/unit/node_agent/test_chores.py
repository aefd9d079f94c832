"""The node's side of chores: taken once, repeated safely, dropped at a word, never more than the budget."""

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from node_agent.chores import Budget, ChoreContext, ChoreDropped, ChoreError, ChoreRunner, Handler
from node_agent.directory_store import DirectoryStore
from node_agent.store import StoreNotFound
from state.chore_wire import Chore, ChoreDone, ChoreFailed, ChoresDown


def runner(
    root: Path, handlers: Mapping[str, Handler], changed: threading.Event | None = None
) -> ChoreRunner:
    """A runner of one worker at a time, which the test plays."""
    told = changed or threading.Event()
    return ChoreRunner(
        DirectoryStore(root), handlers, at_once_max=1, bytes_per_s_max=1_000_000, changed=told.set
    )


def chore(attempt: int = 1, kind: str = "count") -> Chore:
    """A chore, as it is given."""
    return Chore(id="c-1", attempt=attempt, kind=kind, subject="s", request={"to": 3})


def count(context: ChoreContext) -> dict[str, int]:
    """A handler."""
    context.spend(10)
    return {"counted": context.chore.request["to"]}


def run_all(runner: ChoreRunner) -> None:
    """Play the worker until nothing waits."""
    while (work := runner.take_now()) is not None:
        runner.do(work)


def test_a_chore_is_done_once_and_its_result_told_until_it_is_accepted(tmp_path: Path) -> None:
    """Given twice it is one; it counts as held until the gateway has the result."""
    changed = threading.Event()
    mine = runner(tmp_path, {"count": count}, changed)
    assert (mine.up().kinds, mine.up().wanted) == (("count",), 1)
    mine.down(ChoresDown(given=(chore(), chore())))
    assert (mine.up().wanted, mine.up().held) == (0, (chore().handle,))
    run_all(mine)
    assert changed.is_set()
    said = mine.up()
    assert said.results == (ChoreDone(chore=chore().handle, result={"counted": 3}),)
    assert said.held == (chore().handle,)
    mine.down(ChoresDown(accepted=(chore().handle,)))
    assert (mine.up().results, mine.up().held, mine.up().wanted) == ((), (), 1)


def test_every_way_to_fail_has_a_code_and_none_ends_the_worker(tmp_path: Path) -> None:
    """Errors of the kind, of the store, and those that nobody expected."""

    def fail(context: ChoreContext) -> dict[str, int]:
        errors: dict[str, Exception] = {
            "kind": ChoreError("no", code="no_such", permanent=True, detail={"of": 1}),
            "store": StoreNotFound("nothing there"),
            "bug": ZeroDivisionError("oops"),
        }
        raise errors[context.chore.subject]

    mine = runner(tmp_path, {"fail": fail})
    told: dict[str, ChoreFailed] = {}
    for number, subject in enumerate(("kind", "store", "bug")):
        given = Chore(id=f"c-{number}", attempt=1, kind="fail", subject=subject)
        mine.down(ChoresDown(given=(given,)))
        run_all(mine)
        (result,) = mine.up().results
        assert isinstance(result, ChoreFailed)
        told[subject] = result
        mine.down(ChoresDown(accepted=(given.handle,)))
    assert {key: (line.code, line.permanent) for key, line in told.items()} == {
        "kind": ("no_such", True),
        "store": ("store_not_found", False),
        "bug": ("internal_error", False),
    }
    assert told["kind"].detail == {"of": 1}


def test_a_dropped_chore_ends_without_a_result(tmp_path: Path) -> None:
    """Whether it waits or has begun."""

    def drop_itself(context: ChoreContext) -> dict[str, int]:
        mine.down(ChoresDown(dropped=(context.chore.handle,)))
        context.check()
        raise AssertionError

    mine = runner(tmp_path, {"count": drop_itself})
    mine.down(ChoresDown(given=(chore(),)))
    mine.down(ChoresDown(dropped=(chore().handle,)))
    assert not mine.may_run()
    mine.down(ChoresDown(given=(chore(2),)))
    run_all(mine)
    assert (mine.up().results, mine.up().held) == ((), ())


def test_a_kind_that_is_not_known_is_left_alone(tmp_path: Path) -> None:
    """It was given by mistake; another node may have it once we are found not to hold it."""
    mine = runner(tmp_path, {"count": count})
    mine.down(ChoresDown(given=(chore(kind="other"),)))
    assert mine.up().held == ()


def test_the_worker_ends_at_the_close_and_nothing_is_taken_after_it(tmp_path: Path) -> None:
    """The thread comes to its end; nothing more is wanted."""
    mine = runner(tmp_path, {"count": count})
    thread = threading.Thread(target=mine.run)
    thread.start()
    mine.close()
    thread.join(30)
    assert not thread.is_alive()
    mine.down(ChoresDown(given=(chore(),)))
    assert (mine.up().wanted, mine.up().held) == (0, ())


def test_the_budget_bounds_the_bytes_a_second() -> None:
    """A long read takes as long as the budget says, but for a burst at its beginning.

    A drop ends the wait.
    """
    now_s = 100.0
    waits: list[float] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now_s
            waits.append(timeout or 0.0)
            now_s += timeout or 0.0
            return False

    budget = Budget(1000, clock_s=lambda: now_s)
    for _ in range(20):
        budget.spend(500, Event())
    assert sum(waits) == pytest.approx(9.0)
    dropped = threading.Event()
    dropped.set()
    with pytest.raises(ChoreDropped):
        budget.spend(1, dropped)
