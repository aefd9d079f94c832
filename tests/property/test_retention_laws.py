"""Which archives are kept, for every history of a target."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reconciler.retention import LIVE_KEPT, Keep, Kept, retained

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KEEP = st.builds(Keep, newest=st.integers(0, 7), days=st.integers(0, 10))


@st.composite
def histories(draw: st.DrawFn, least: int = 0) -> list[Kept]:
    """Archives of one target, up to three weeks old, in any order; later ones have higher numbers."""
    ages = sorted(draw(st.lists(st.integers(0, 21 * 24 * 60), min_size=least, max_size=25)), reverse=True)
    made = [
        Kept(f"a-{n}", n, NOW - timedelta(minutes=age), *(draw(st.integers(0, 3)) == 0 for _ in range(4)))
        for n, age in enumerate(ages, 1)
    ]
    return draw(st.permutations(made))


@given(histories(least=1), KEEP)
def test_the_newest_and_the_newest_that_is_well_are_always_kept(made: list[Kept], keep: Keep) -> None:
    """Whatever else goes, the last state is there, and the last one that can be relied on."""
    stay = retained(made, NOW, keep)
    assert max(made, key=lambda one: one.number).id in stay
    well = [one for one in made if not (one.suspect or one.recovered)]
    assert not well or max(well, key=lambda one: one.number).id in stay


@given(histories(), KEEP)
def test_what_something_is_restored_from_is_kept(made: list[Kept], keep: Keep) -> None:
    """A live row's archive, one that somebody goes back to, one that a step reads."""
    assert {one.id for one in made if one.pinned} <= retained(made, NOW, keep)


@given(histories(), KEEP)
def test_as_many_of_the_newest_as_asked_are_kept(made: list[Kept], keep: Keep) -> None:
    """A damaged one is no generation to go back to, nor are the many that are taken while a pod runs."""
    well = sorted((one for one in made if _settled(one)), key=lambda one: -one.number)
    assert {one.id for one in well[: keep.newest]} <= retained(made, NOW, keep)


@given(histories(), KEEP)
def test_the_last_of_each_of_the_last_days_is_kept(made: list[Kept], keep: Keep) -> None:
    """Today is the first of them."""
    stay = retained(made, NOW, keep)
    for back in range(keep.days):
        day = (NOW - timedelta(days=back)).date()
        of_day = [
            one for one in made if one.committed_at.date() == day and not (one.suspect or one.recovered)
        ]
        assert not of_day or max(of_day, key=lambda one: one.number).id in stay


@given(histories(), KEEP)
def test_where_nothing_is_known_to_be_well_everything_is_kept(made: list[Kept], keep: Keep) -> None:
    """Then any of them may be the one that can still be read."""
    damaged = [Kept(one.id, one.number, one.committed_at, suspect=True) for one in made]
    assert retained(damaged, NOW, keep) == {one.id for one in made}


@given(histories(), KEEP, st.integers(0, 60 * 24 * 30), st.integers(0, 8))
def test_what_was_retired_is_never_wanted_again(
    made: list[Kept], keep: Keep, later_minutes: int, more: int
) -> None:
    """Time goes on and new archives come: none of those that went would have been kept then."""
    later = NOW + timedelta(minutes=later_minutes)
    number = max((one.number for one in made), default=0)
    new = [Kept(f"new-{n}", number + n, later, suspect=False) for n in range(1, more + 1)]
    gone = {one.id for one in made} - retained(made, NOW, keep)
    assert not gone & retained([*made, *new], later, keep)


@given(histories(), KEEP, st.lists(st.integers(1, 60 * 24), max_size=8))
def test_looking_often_keeps_what_looking_once_does(
    made: list[Kept], keep: Keep, waits_minutes: list[int]
) -> None:
    """It does not matter how often the clock comes by: each look sees what the one before left."""
    left, now = list(made), NOW
    for minutes in waits_minutes:
        now += timedelta(minutes=minutes)
        left = [one for one in left if one.id in retained(left, now, keep)]
    assert {one.id for one in left} == (retained(made, now, keep) if waits_minutes else {a.id for a in made})


@given(histories(), KEEP)
def test_no_more_is_kept_than_the_rules_ask_for(made: list[Kept], keep: Keep) -> None:
    """Without pins and damage: the newest ones and one a day."""
    plain = [Kept(one.id, one.number, one.committed_at, live=one.live) for one in made]
    assert len(retained(plain, NOW, keep)) <= max(keep.newest, 1) + keep.days + LIVE_KEPT


@given(histories(), KEEP)
def test_recovered_copies_are_kept_for_a_month(made: list[Kept], keep: Keep) -> None:
    """Whatever came after them."""
    assert {one.id for one in made if one.recovered} <= retained(made, NOW, keep)


def _settled(one: Kept) -> bool:
    return not (one.suspect or one.live or one.recovered)
