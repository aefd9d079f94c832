"""Which long poll is answered when."""

from contextlib import ExitStack

from reconciler.waiting import WaitingNodes
from state.delivery import OpenIds
from state.wire import SyncRequest
from tests.support.scripted_node import ScriptedNode


def request(
    sequence: int, boot_id: str = "boot-1", in_hand: tuple[str, ...] = (), ending: tuple[str, ...] = ()
) -> SyncRequest:
    """A call of node-1."""
    node = ScriptedNode("node-1")
    return node.request(sequence=sequence, boot_id=boot_id, in_hand=in_hand, ending=ending)


def test_a_newer_call_ends_the_older_in_whichever_order_they_come() -> None:
    """Two calls of one node may overtake each other between the database and the bench where they wait."""
    for order in ((1, 2), (2, 1)):
        nodes = WaitingNodes()
        with ExitStack() as stack:
            waiters = {n: stack.enter_context(nodes.waiting(request(n))) for n in order}
            assert (waiters[1].ended, waiters[2].ended) == (True, False)
            assert len(nodes) == 1
        assert len(nodes) == 0


def test_a_new_boot_ends_the_poll_of_the_old_one() -> None:
    """Its numbers start again from one."""
    nodes = WaitingNodes()
    with nodes.waiting(request(900)) as old, nodes.waiting(request(1, "boot-2")) as new:
        assert (old.ended, new.ended) == (True, False)


def test_a_node_has_news_when_its_open_actions_are_not_what_it_has_in_hand() -> None:
    """More to do, or something taken back; never for what it has already."""
    cases = {("a",): frozenset("a"), ("b",): frozenset("ab"), ("c",): frozenset(), (): frozenset()}
    told = {}
    for in_hand, open_ids in cases.items():
        nodes = WaitingNodes()
        with nodes.waiting(request(1, in_hand=in_hand)) as waiter:
            nodes.look({"node-1": OpenIds(open_ids)} if open_ids else {})
            told[in_hand] = waiter.news.is_set()
    assert told == {("a",): False, ("b",): True, ("c",): True, (): False}


def test_a_node_hears_of_what_was_taken_back_until_it_is_ending_it() -> None:
    """Whether it has it in hand or not."""
    cases = {
        ((), ()): True,
        (("a",), ()): True,
        (("a",), ("a",)): False,
    }
    for (in_hand, ending), expected in cases.items():
        nodes = WaitingNodes()
        with nodes.waiting(request(1, in_hand=in_hand, ending=ending)) as waiter:
            nodes.look({"node-1": OpenIds(taken_back=frozenset("a"))})
            assert waiter.news.is_set() is expected, (in_hand, ending)


def test_nobody_waits_any_more_once_the_gateway_stops() -> None:
    """Those who wait are answered, and those who come too late as well."""
    nodes = WaitingNodes()
    with nodes.waiting(request(1)) as before:
        nodes.close()
        with nodes.waiting(request(2)) as after:
            assert (before.ended, after.ended) == (True, True)
