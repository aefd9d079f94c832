"""Leading by a lease, on a real database."""

from datetime import timedelta

import pytest

from reconciler.lead import LEASE, MARGIN, Lead
from state import leader
from state.database import Database, DatabaseUnavailable
from tests.support.postgres import TestServer


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_of_two_leads(db: Database) -> None:
    """The other waits for its chance."""
    one, other = Lead(db, "one"), Lead(db, "other")
    one.attend()
    other.attend()

    assert one.current() is not None
    assert other.current() is None


def test_a_lease_is_trusted_for_less_than_it_lasts(db: Database) -> None:
    """Counted from before it was asked for: we stop believing before anybody else can begin."""
    clock = Clock()
    lead = Lead(db, "one", clock)
    lead.attend()
    clock.now += (LEASE - MARGIN).total_seconds() - 0.1
    assert lead.current() is not None
    clock.now += 0.2
    assert lead.current() is None
    lead.attend()
    assert lead.current() is not None


def test_a_leader_that_slept_too_long_learns_that_another_leads(db: Database) -> None:
    """It gives up at its next renewal, and its plans are refused by the term (LAW 5)."""
    clock = Clock()
    sleeper = Lead(db, "sleeper", clock)
    sleeper.attend()
    with db.transaction() as conn:
        conn.execute("UPDATE leader SET expires_at = now() - interval '1 s'")
    heir = leader.try_lead(db, "heir", timedelta(seconds=60))
    sleeper.attend()

    assert heir is not None
    assert heir.term == 2
    assert sleeper.current() is None


def test_a_new_term_gives_every_node_a_new_lease(db: Database) -> None:
    """What is counted from is when we began to lead, by the database's clock (LAW 13)."""
    lead = Lead(db, "one")
    lead.attend()
    first = lead.current()
    lead.resign()
    lead.attend()
    second = lead.current()

    assert first is not None
    assert second is not None
    assert second.since > first.since


def test_a_lease_that_could_not_be_renewed_in_time_is_a_new_term(db: Database) -> None:
    """After an outage the nodes' last words are old through no fault of theirs (LAW 13)."""
    clock = Clock()
    lead = Lead(db, "one", clock)
    lead.attend()
    first = lead.current()
    clock.now += LEASE.total_seconds()
    lead.attend()
    second = lead.current()

    assert first is not None
    assert second is not None
    assert (second.leadership.term, second.since > first.since) == (2, True)


def test_without_the_database_the_lease_runs_out_by_itself(postgres_server: TestServer) -> None:
    """A renewal that fails leaves what is trusted as it was."""
    name = postgres_server.create()
    gone = Database(postgres_server.url_of(name), "reconciler")
    clock = Clock()
    lead = Lead(gone, "one", clock)
    lead.attend()
    postgres_server.drop(name)
    with pytest.raises(DatabaseUnavailable):
        lead.attend()

    assert lead.current() is not None
    clock.now += LEASE.total_seconds()
    assert lead.current() is None
    gone.close()
