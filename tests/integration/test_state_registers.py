"""Nodes, tokens, history and leadership, on a real database."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest

from state import events, leader, nodes, tokens
from state.database import Database
from state.model import Resources
from tests.support.rows import add_pod, add_workspace

LEASE = timedelta(minutes=1)


# ---- nodes -------------------------------------------------------------------------------------------------


def test_a_node_is_known_by_its_token(db: Database) -> None:
    """Only by the newest one, and only kept as a hash."""
    nodes.register(db, "node-1", "first")
    assert nodes.authenticate_node(db, "node-1", "first")
    nodes.register(db, "node-1", "second")

    assert not nodes.authenticate_node(db, "node-1", "first")
    assert nodes.authenticate_node(db, "node-1", "second")
    assert not nodes.authenticate_node(db, "node-2", "second")
    with db.transaction() as connection:
        row = connection.execute("SELECT node::text AS row FROM node").fetchone()
    assert row is not None
    assert "second" not in row["row"]


def test_registering_again_is_told_only_when_it_changes(db: Database) -> None:
    """A machine that starts every day does not fill the history."""
    for token in ("first", "first", "second"):
        nodes.register(db, "node-1", token)

    assert [event.to_value for event in events.list_events(db, node_id="node-1")] == [
        "registered",
        "new token",
    ]


def test_a_new_node_is_silent_and_empty(db: Database) -> None:
    """Until it is heard, nothing is known of it."""
    nodes.register(db, "node-1", "token")
    (status,) = nodes.list_nodes(db)

    assert (status.id, status.silent, status.last_seen_at, status.pods) == ("node-1", True, None, 0)
    assert status.capacity == Resources(0, 0, 0)


def test_cordoning_leaves_an_event(db: Database) -> None:
    """In the name of who did it; and only for nodes that there are."""
    nodes.register(db, "node-1", "token")
    nodes.set_cordoned(db, "node-1", True, actor="api:carla")

    assert nodes.list_nodes(db)[0].cordoned
    newest = events.list_events(db, node_id="node-1", newest=True, limit=1)[0]
    assert (newest.actor, newest.kind, newest.to_value) == ("api:carla", "cordoned", "true")
    with pytest.raises(nodes.NodeNotFound, match="There is no node node-9"):
        nodes.set_cordoned(db, "node-9", True, actor="api:carla")


# ---- tokens ------------------------------------------------------------------------------------------------


def test_a_token_opens_until_it_is_revoked(db: Database) -> None:
    """It has 256 random bits, is shown once, and is kept as a hash."""
    made, plaintext = tokens.create_token(db, "revpro", "revpro", actor="api:olga")
    token = tokens.authenticate(db, plaintext)

    assert token is not None
    assert (plaintext[:4], len(plaintext), token.name, token.scope) == ("cpt_", 47, "revpro", "revpro")
    with db.transaction() as connection:
        row = connection.execute("SELECT api_token::text AS row FROM api_token").fetchone()
    assert row is not None
    assert plaintext not in row["row"]
    assert made.id == token.id
    revoked = tokens.revoke(db, token.id, actor="api:olga")
    assert revoked.revoked_at is not None
    assert tokens.authenticate(db, plaintext) is None
    assert tokens.revoke(db, token.id) == revoked
    assert tokens.list_tokens(db) == [revoked]
    told = [(event.actor, event.to_value) for event in events.list_events(db)]
    assert told == [("api:olga", "created"), ("api:olga", "revoked")]


def test_tokens_are_listed_in_pages(db: Database) -> None:
    """All of them once, revoked ones too; and one that never was cannot be revoked."""
    made = sorted(tokens.create_token(db, "revpro", "revpro")[0].id for _ in range(3))
    first = tokens.list_tokens(db, limit=2)
    rest = tokens.list_tokens(db, after=first[-1].id, limit=2)

    assert [token.id for token in (*first, *rest)] == made
    with pytest.raises(tokens.TokenNotFound, match="No token has the id t-aaaaaaaaaaaa"):
        tokens.revoke(db, "t-aaaaaaaaaaaa")


@pytest.mark.parametrize("wrong", ["", "cpt_", "cpt_" + "x" * 43, "x" * 10_000, "cpt_ä", "' OR true --"])
def test_what_is_no_token_opens_nothing(db: Database, wrong: str) -> None:
    """Whatever is sent, there is no error and no access."""
    tokens.create_token(db, "admin", "admin")

    assert tokens.authenticate(db, wrong) is None


# ---- history -----------------------------------------------------------------------------------------------


def test_history_is_read_in_pages_from_either_end(db: Database) -> None:
    """Oldest first, also where only the newest are asked for."""
    with db.transaction() as connection:
        for number in range(5):
            events.append(connection, actor="test", kind="count", node_id="node-1", detail={"number": number})
    first = events.list_events(db, limit=2)
    rest = events.list_events(db, after=first[-1].id)

    def numbers(page: list[events.Event]) -> list[int]:
        return [event.detail["number"] for event in page if event.detail]

    assert (numbers(first), numbers(rest)) == ([0, 1], [2, 3, 4])
    assert numbers(events.list_events(db, newest=True, limit=2)) == [3, 4]


def test_a_pods_history_has_its_workspaces_and_no_other_pods(db: Database) -> None:
    """What happened to the files happened to the pod; what happened to its neighbour did not."""
    with db.transaction() as connection:
        add_workspace(connection)
        add_pod(connection)
        add_pod(connection, "p-dddddddddddd", "other")
        events.append(
            connection, actor="test", kind="placed", workspace_id="w-aaaaaaaaaaaa", node_id="node-1"
        )
        events.append(connection, actor="test", kind="elsewhere", node_id="node-1")

    assert [event.kind for event in events.list_events(db, pod_id="p-aaaaaaaaaaaa")] == ["desired", "placed"]
    assert [event.kind for event in events.list_events(db, user_id="alice")] == [
        "desired",
        "desired",
        "placed",
    ]
    assert [event.kind for event in events.list_events(db, node_id="node-1")] == ["placed", "elsewhere"]
    assert events.list_events(db, user_id="nobody") == []


def test_what_is_rolled_back_did_not_happen(db: Database) -> None:
    """An event belongs to the transaction that it tells of."""
    with suppress(RuntimeError), db.transaction() as connection:
        events.append(connection, actor="test", kind="never")
        raise RuntimeError

    assert events.list_events(db) == []


# ---- leading -----------------------------------------------------------------------------------------------


def test_one_leads_of_many_who_try_at_once(db: Database) -> None:
    """Eight at the same moment: one term, one leader."""
    with ThreadPoolExecutor(8) as threads:
        won = [one for one in threads.map(lambda n: leader.try_lead(db, f"r{n}", LEASE), range(8)) if one]

    assert [leadership.term for leadership in won] == [1]


def test_terms_grow_and_a_former_leader_finds_out(db: Database) -> None:
    """After a resignation the next term begins at once, and the old one records nothing more."""
    first = leader.try_lead(db, "a", LEASE)
    assert first is not None
    assert leader.try_lead(db, "b", LEASE) is None
    assert leader.renew(db, first, LEASE)
    leader.resign(db, first)
    second = leader.try_lead(db, "b", LEASE)

    assert second == leader.Leadership("b", 2)
    assert not leader.renew(db, first, LEASE)
    with db.transaction() as connection:
        leader.assert_leading(connection, second)
        with pytest.raises(leader.LeadershipLost, match="term 1 of a is over"):
            leader.assert_leading(connection, first)


def test_a_lease_that_ran_out_leads_nobody(db: Database) -> None:
    """Whoever slept through its lease records nothing, though nobody else leads yet."""
    asleep = leader.try_lead(db, "a", timedelta(0))
    assert asleep is not None

    with db.transaction() as connection, pytest.raises(leader.LeadershipLost):
        leader.assert_leading(connection, asleep)
    assert leader.renew(db, asleep, LEASE)
    with db.transaction() as connection:
        leader.assert_leading(connection, asleep)


def test_who_was_killed_and_started_again_leads_at_once(db: Database) -> None:
    """Under a new term: what the killed one had begun is not taken for its own."""
    assert leader.try_lead(db, "a", LEASE) == leader.Leadership("a", 1)
    assert leader.try_lead(db, "a", LEASE) == leader.Leadership("a", 2)


def test_nobody_takes_over_in_the_middle_of_a_record(db: Database) -> None:
    """The transaction that asserted leading holds the row: the next term begins after it (LAW 5)."""
    leading = leader.try_lead(db, "a", LEASE)
    assert leading is not None
    with ThreadPoolExecutor(1) as threads:
        with db.transaction() as connection:
            leader.assert_leading(connection, leading)
            taken = threads.submit(leader.resign, db, leading)
            while not taken.done() and not somebody_waits(db):
                pass
            assert not taken.done()
        taken.result()


def somebody_waits(db: Database) -> bool:
    """Whether a session waits for another's lock."""
    with db.transaction() as connection:
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return connection.execute(waits).fetchone() is not None
