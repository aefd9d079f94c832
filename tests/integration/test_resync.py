"""The walk through all workspaces, due or not, that makes a lost wake-up harmless (LAW 1)."""

from datetime import timedelta

from reconciler.lead import Lead
from reconciler.loop import Loop, Resync
from reconciler.outage import Outage
from reconciler.tick import WORKSPACES_PER_PASS_MAX
from state.database import Doorbell
from tests.support.control import LIMITS, Control


def lose_all_dues(control: Control) -> None:
    """As if every bell and every mark had been lost."""
    control.rows("UPDATE pod SET next_check_at = NULL")
    control.rows("UPDATE workspace SET next_check_at = NULL")


def test_a_new_term_walks_through_everything(control: Control, database_url: str) -> None:
    """Whoever begins to lead finds what nobody marked as due."""
    control.join("node-1")
    control.pod("alice")
    lose_all_dues(control)
    bell = Doorbell(database_url, [])
    lead = Lead(control.db, "test")
    loop = Loop(control.db, bell, LIMITS, lead, Resync(), Outage("database"))

    loop.turn(control.leading)

    bell.close()
    assert len(control.rows("SELECT * FROM placement")) == 1


def test_a_walk_comes_by_everything_once(control: Control) -> None:
    """Page by page, and it ends."""
    for number in range(5):
        control.pod(f"user-{number}")
    resync, seen = Resync(), []

    resync.ask()
    while resync.under_way:
        seen += resync.page(control.db, 2)

    assert sorted(seen) == [row["id"] for row in control.rows("SELECT id FROM workspace ORDER BY id")]


def test_what_is_left_over_from_a_full_claim_is_looked_at_at_once(
    control: Control, database_url: str
) -> None:
    """A claim is full of pods before it is full of workspaces: the rest is due, and no bell rings for it."""
    pods = [control.pod("alice", f"pod-{number}") for number in range(WORKSPACES_PER_PASS_MAX)]
    control.pod("bob")
    bell = Doorbell(database_url, [])
    loop = Loop(control.db, bell, LIMITS, Lead(control.db, "test"), Resync(), Outage("database"))
    while loop.turn(control.leading) == timedelta(0):
        pass
    control.rows("UPDATE pod SET next_check_at = now()")
    control.rows("UPDATE pod SET next_check_at = now() - interval '1 minute' WHERE id = ANY(%s)", pods)

    wait = loop.turn(control.leading)

    bell.close()
    assert wait == timedelta(0)
