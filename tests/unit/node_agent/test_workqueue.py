"""The work queue: one action per target, workspaces alone, kinds bounded, first come first served."""

from hypothesis import given
from hypothesis import strategies as st

from node_agent.workqueue import Lanes, Work, WorkQueue
from state.wire import Action, ArchivePod, ArchiveSource, RestoreWorkspace, StartPod, StopPod

LANES = Lanes(starts_max=2, uploads_max=1, queue_length_max=50)
SOURCE = ArchiveSource(manifest_key="m", manifest_digest="d")
STEPS = [StartPod(), StopPod(), ArchivePod(number=1)]


def action(name: str, workspace: str, pod: str | None, kind: int = 0) -> Action:
    """An action; for no pod it is a workspace's."""
    step = RestoreWorkspace(archive=SOURCE) if pod is None else STEPS[kind]
    return Action(id=name, workspace_id=workspace, user_id="u", pod_id=pod, epoch=1, attempt=1, step=step)


DRAWN = st.lists(
    st.tuples(
        st.sampled_from(["w-a", "w-b"]), st.none() | st.sampled_from(["p-1", "p-2"]), st.integers(0, 2)
    ),
    max_size=20,
)
ACTIONS = DRAWN.map(
    lambda drawn: [action(str(n), w, p and f"{p}-{w}", kind) for n, (w, p, kind) in enumerate(drawn)]
)


def begin_all(queue: WorkQueue) -> list[Work]:
    """Begin whatever may run together now."""
    begun = []
    while any(map(queue.may_run, queue.in_hand())):
        work = queue.take()
        assert work is not None
        begun.append(work)
    return begun


@given(ACTIONS)
def test_what_runs_together_never_shares_a_target_and_stays_in_its_lanes(actions: list[Action]) -> None:
    """Until the queue is empty, each batch that runs together keeps all bounds; everything runs once."""
    queue = WorkQueue(LANES)
    for each in actions:
        assert queue.offer(each)
    ran = []
    while queue.in_hand():
        begun = begin_all(queue)
        assert begun
        together = [work.action for work in begun]
        assert len({a.target for a in together}) == len(together)
        for alone in (a for a in together if a.pod_id is None):
            assert [a for a in together if a.workspace_id == alone.workspace_id] == [alone]
        assert sum(a.step.verb == "start_pod" for a in together) <= LANES.starts_max
        assert sum(a.step.verb == "archive_pod" for a in together) <= LANES.uploads_max
        for work in begun:
            queue.finish(work)
        ran += [a.id for a in together]
    assert sorted(ran) == sorted(a.id for a in actions)


def test_an_action_in_hand_is_not_taken_twice() -> None:
    """A second delivery changes nothing."""
    queue = WorkQueue(LANES)
    assert queue.offer(action("1", "w-a", "p-1"))
    assert not queue.offer(action("1", "w-a", "p-1"))


def test_a_full_queue_takes_no_more() -> None:
    """What is not taken is delivered again later."""
    queue = WorkQueue(Lanes(1, 1, queue_length_max=1))
    assert queue.offer(action("1", "w-a", "p-1"))
    assert not queue.offer(action("2", "w-a", "p-2"))


def test_what_is_taken_back_before_it_began_is_forgotten_and_after_is_told() -> None:
    """Waiting work goes; begun work learns that it may end."""
    queue = WorkQueue(LANES)
    queue.offer(action("1", "w-a", "p-1"))
    begun = queue.take()
    queue.offer(action("2", "w-a", "p-1"))
    queue.take_back(["1", "2", "3"])
    assert begun is not None
    assert begun.taken_back.is_set()
    assert [work.action.id for work in queue.in_hand()] == ["1"]


def test_a_closed_queue_hands_out_nothing() -> None:
    """Workers end, waiting work is forgotten."""
    queue = WorkQueue(LANES)
    queue.offer(action("1", "w-a", "p-1"))
    queue.close()
    assert queue.take() is None
    assert not queue.offer(action("2", "w-a", "p-2"))
    assert queue.wait_empty(0)


def test_an_action_older_than_one_of_its_target_before_is_a_late_copy() -> None:
    """Done after its successors it would undo them; the newest itself may be asked for again."""
    queue = WorkQueue(LANES)
    older, newer = (
        action(str(attempt), "w", "p").model_copy(update={"attempt": attempt}) for attempt in (1, 2)
    )
    queue.offer(newer)

    assert (queue.is_outdated(older), queue.is_outdated(newer)) == (True, False)


def test_uploads_and_starts_wait_for_their_lane() -> None:
    """LAW 15: of many archives one runs, of many starts two; a stop has no lane and waits for nobody."""
    queue = WorkQueue(LANES)
    for number, kind in enumerate([0, 0, 0, 1, 2, 2, 2]):
        queue.offer(action(str(number), f"w-{number}", f"p-{number}", kind))

    verbs = sorted(work.action.step.verb for work in begin_all(queue))

    assert verbs == ["archive_pod", "start_pod", "start_pod", "stop_pod"]


def test_nothing_begins_where_somebody_is_alone() -> None:
    """Work of other workspaces goes on; what has begun is not to be alone with."""
    queue = WorkQueue(LANES)
    queue.offer(action("1", "w-a", "p-1"))
    queue.offer(action("2", "w-b", "p-2"))
    with queue.alone_in("w-a") as free:
        assert free
        begun = queue.take()
        assert begun is not None
        assert begun.action.id == "2"
        with queue.alone_in("w-b") as other, queue.alone_in("w-a") as again:
            assert (other, again) == (False, False)
    after = queue.take()
    assert after is not None
    assert after.action.id == "1"


@given(ACTIONS, st.data())
def test_what_is_put_back_goes_on_when_another_has_ended(actions: list[Action], data: st.DataObject) -> None:
    """Whatever is put back, and how often, everything ends once, and a worker never waits with all idle."""
    queue = WorkQueue(LANES)
    for each in actions:
        queue.offer(each)
    ended, coming = [], 0
    while queue.in_hand():
        begun = begin_all(queue)
        assert begun
        for work in begun:
            if coming and data.draw(st.booleans()):
                queue.put_back(work, lambda: False)
                assert not queue.may_run(work)
                continue
            coming += 1
            ended.append(work)
        while coming:
            queue.finish(ended[-coming])
            coming -= 1
    assert sorted(work.action.id for work in ended) == sorted(a.id for a in actions)


def test_what_is_put_back_while_a_lane_is_free_goes_on_at_once() -> None:
    """Who was in its way has ended before it was put back: nobody else would wake it."""
    queue = WorkQueue(LANES)
    queue.offer(action("1", "w-a", "p-1"))
    work = queue.take()
    assert work is not None
    queue.put_back(work, lambda: True)
    assert queue.take() is work
