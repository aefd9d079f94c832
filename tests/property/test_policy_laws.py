"""What holds for every pod, whoever is or is not in it, at every moment."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.policy import decide
from state.lifecycle import LifeLimits, Move, PodLife, Presence, Rule
from state.model import Desired, Observed

START = datetime(2026, 9, 1, 8, tzinfo=UTC)
WISHES = (Move.STOP, Move.ARCHIVE)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
LONG = timedelta(hours=1)
PASSES_MAX = 20
laws = settings(max_examples=100, deadline=None)

# Few and close to each other, so that deadlines, looks and wishes meet.
moments = st.integers(0, 60).map(lambda tens: START + timedelta(seconds=10 * tens))
spans = st.integers(1, 30).map(lambda tens: timedelta(seconds=10 * tens))
mostly_set = st.one_of(spans, spans, spans, st.none())
mostly_unset = st.one_of(st.none(), st.none(), st.none(), spans)
limits = st.builds(
    LifeLimits,
    closed_grace=mostly_set,
    idle_limit=mostly_set,
    busy_max=mostly_set,
    lifetime=mostly_unset,
    archive_after=st.none() | spans,
    warning=spans,
)


@st.composite
def presences(draw: st.DrawFn, started_at: datetime = START) -> Presence:
    """A look as `state.lifecycle.merge` could have made it."""
    connections = draw(st.integers(0, 3))
    return Presence(
        seen_at=draw(moments.map(lambda moment: moment + 5 * MINUTE)),
        started_at=started_at,
        connections=connections,
        connected_at=draw(moments) if connections else None,
        gone_at=None if connections else draw(st.none() | moments),
        heartbeat_at=draw(st.none() | moments),
        active_at=draw(st.none() | moments),
        busy=draw(st.booleans()),
        busy_at=draw(st.none() | moments),
        busy_with="a build",
    )


@st.composite
def lives(draw: st.DrawFn, **given_fields: object) -> PodLife:
    """Any pod at all; what is given is so."""
    fields: dict[str, object] = {
        "pod_id": "p-one",
        "generation": 1,
        "desired": draw(st.sampled_from(Desired)),
        "actual": draw(st.sampled_from(Observed)),
        "since": draw(moments),
        "wished_at": draw(moments),
        "limits": draw(limits),
        "known": draw(st.booleans()),
        "busy_with_action": draw(st.booleans()),
        "started_at": draw(st.sampled_from([None, START, START + MINUTE])),
        "keep_until": draw(st.none() | moments),
        "warned_at": draw(st.none() | moments),
        "presence": draw(st.none() | presences()),
    }
    drawn = {
        name: draw(value) if isinstance(value, st.SearchStrategy) else value
        for name, value in given_fields.items()
    }
    return PodLife(**{**fields, **drawn})  # type: ignore[arg-type]


def running(**fields: object) -> st.SearchStrategy[PodLife]:
    """A pod that runs as wanted, of which all is known and fresh enough."""
    return lives(
        desired=Desired.RUNNING,
        actual=Observed.RUNNING,
        known=True,
        busy_with_action=False,
        started_at=START,
        **fields,
    )


def crucial(life: PodLife, now: datetime) -> Iterator[tuple[PodLife, datetime]]:
    """The pod now, and around its next deadline: with its look, with older and newer ones, warned or not."""
    yield life, now
    deadline = decide(looked_at(life, now), now).stops_at
    if deadline is None:
        return
    for moment in (deadline - SECOND, deadline, deadline + SECOND):
        for seen_at in (deadline - SECOND, moment):
            seen = looked_at(life, seen_at)
            yield seen, moment
            yield replace(seen, warned_at=START - LONG), moment


def looked_at(life: PodLife, now: datetime) -> PodLife:
    """The same pod with a look from right now."""
    assert life.presence is not None
    return replace(life, presence=replace(life.presence, seen_at=now))


@laws
@given(lives(), moments)
def test_every_pod_gets_a_verdict(life: PodLife, now: datetime) -> None:
    """Total: there is a verdict with a reason for whatever there is, the same each time it is asked for."""
    verdict = decide(life, now)

    assert verdict.reason
    assert decide(life, now) == verdict
    assert (verdict.move in WISHES) <= (verdict.rule is not None)


@laws
@given(lives(), moments)
def test_only_what_is_settled_is_touched(life: PodLife, now: datetime) -> None:
    """A pod that is on its way somewhere is left alone, and nothing is ever woken or deleted."""
    move = decide(life, now).move

    if move is Move.STOP:
        assert (life.desired, life.actual) == (Desired.RUNNING, Observed.RUNNING)
    if move is Move.ARCHIVE:
        assert (life.desired, life.actual) == (Desired.STOPPED, Observed.STOPPED)


@laws
@given(
    lives(
        desired=Desired.RUNNING,
        actual=Observed.RUNNING,
        busy_with_action=False,
        presence=st.none() | presences(),
    ),
    moments,
)
def test_what_is_not_known_stops_nothing(life: PodLife, now: datetime) -> None:
    """A silent node, no look, an old look, a look at a former start: never absence (LAW 6, 13)."""
    looked = (*crucial(life, now), *_long_after(life, now)) if life.presence else ((life, now),)
    for one, moment in looked:
        verdict = decide(one, moment)
        seen = one.presence
        tells = seen is not None and seen.started_at == one.started_at
        fresh = tells and seen is not None and moment - seen.seen_at <= one.limits.fresh

        if not one.known:
            assert verdict.move not in WISHES
        if verdict.move is Move.STOP and not fresh:
            assert verdict.rule is Rule.LIFETIME


def _long_after(life: PodLife, now: datetime) -> Iterator[tuple[PodLife, datetime]]:
    """Looked at right after its deadline, and never again; its node is heard, or is not."""
    known = replace(life, known=True)
    deadline = decide(looked_at(known, now), now).stops_at
    if deadline is not None:
        seen = looked_at(life, deadline + SECOND)
        for one in (seen, replace(seen, known=False)):
            yield one, deadline + 2 * SECOND
            yield one, deadline + 2 * SECOND + life.limits.fresh


@laws
@given(running(presence=presences()), moments)
def test_a_stop_needs_a_look_from_after_its_deadline(life: PodLife, now: datetime) -> None:
    """Whoever came back in the last moment is seen: what was looked at before the deadline does not count."""
    for one, moment in crucial(life, now):
        verdict = decide(one, moment)
        if verdict.move is Move.STOP:
            assert verdict.stops_at is not None
            assert moment >= verdict.stops_at
            if verdict.rule is not Rule.LIFETIME:
                assert one.presence is not None
                assert one.presence.seen_at >= verdict.stops_at


@laws
@given(running(presence=presences()), moments)
def test_work_is_not_stopped_below_its_maximum(life: PodLife, now: datetime) -> None:
    """While work goes on nothing but a lifetime ends it, until it has gone on alone for as long as it may."""
    assert life.presence is not None
    at_work = replace(life, presence=replace(life.presence, busy=True))
    for one, moment in crucial(at_work, now):
        verdict = decide(one, moment)
        if verdict.move is Move.STOP and verdict.rule is not Rule.LIFETIME:
            assert one.presence is not None
            somebody = max(one.since, one.wished_at, one.presence.gone_at or START)
            assert one.limits.busy_max is not None
            assert moment >= somebody + one.limits.busy_max


@laws
@given(st.integers(0, 2 * 300))
def test_work_that_pauses_at_the_end_is_given_its_grace(ago_s: int) -> None:
    """Work seen shortly before the end puts it off by a grace; what had ended well before does not."""
    grace, pause = timedelta(seconds=300), timedelta(seconds=60)
    end = START + grace
    worked_at = end - timedelta(seconds=ago_s)
    seen = Presence(seen_at=end, started_at=START, gone_at=START, busy_at=worked_at, busy_with="a build")
    pod = PodLife(
        pod_id="p-one",
        generation=1,
        desired=Desired.RUNNING,
        actual=Observed.RUNNING,
        since=START,
        wished_at=START,
        limits=LifeLimits(closed_grace=grace),
        started_at=START,
        presence=seen,
    )
    verdict = decide(pod, end)

    assert (verdict.move is Move.STOP) == (timedelta(seconds=ago_s) > pause)
    if verdict.move is not Move.STOP:
        assert verdict.stops_at == worked_at + grace


@laws
@given(running(), moments)
def test_a_closed_tab_stops_by_the_end_of_its_grace(life: PodLife, moment: datetime) -> None:
    """Nobody there, nothing going on: at the end of the grace it is stopped, and not before."""
    grace = timedelta(seconds=300)
    gone = Presence(seen_at=moment, started_at=START, gone_at=moment)
    life = replace(
        life,
        since=moment,
        wished_at=START,
        keep_until=None,
        limits=replace(life.limits, closed_grace=grace, lifetime=None),
        presence=gone,
    )

    before = decide(looked_at(life, moment + grace - MINUTE), moment + grace - MINUTE)
    after = decide(looked_at(life, moment + grace), moment + grace)

    assert before.move is Move.LEAVE
    assert before.wake_at == moment + grace
    assert (after.move, after.rule) == (Move.STOP, Rule.CLOSED)


@laws
@given(running(presence=presences()), moments, spans)
def test_an_extension_never_brings_an_end_nearer(life: PodLife, now: datetime, more: timedelta) -> None:
    """Monotone: whoever asks to keep a pod longer never has it stopped earlier."""
    for pod, moment in crucial(life, now):
        longer = replace(pod, keep_until=(pod.keep_until or START) + more)
        one, other = decide(pod, moment), decide(longer, moment)

        if other.move is Move.STOP:
            assert one.move is Move.STOP or other.rule is Rule.LIFETIME
        if one.stops_at is not None and other.stops_at is not None:
            assert other.stops_at >= one.stops_at


@laws
@given(running(presence=presences()), moments)
def test_a_kept_pod_is_kept(life: PodLife, now: datetime) -> None:
    """Before `keep_until` nothing but the lifetime stops it."""
    for pod, moment in crucial(life, now):
        verdict = decide(replace(pod, keep_until=moment + SECOND), moment)

        assert verdict.move is not Move.STOP or verdict.rule is Rule.LIFETIME


@laws
@given(running(presence=presences()), moments)
def test_it_is_looked_at_in_time(life: PodLife, now: datetime) -> None:
    """`wake_at` is never later than the next deadline: woken only by the clock, a pod is not overlooked."""
    for pod, moment in crucial(life, now):
        verdict = decide(pod, moment)

        if verdict.stops_at is not None and verdict.move not in WISHES:
            assert verdict.wake_at is not None
            assert moment < verdict.wake_at
            assert verdict.wake_at <= verdict.stops_at or moment >= verdict.stops_at


@laws
@given(running(presence=presences()), moments)
def test_an_open_tab_is_warned_for_as_long_as_was_said(life: PodLife, now: datetime) -> None:
    """No open tab is stopped without a warning that has stood for its time, however late it was given."""
    for pod, moment in crucial(life, now):
        verdict = decide(pod, moment)

        if verdict.move is Move.STOP and verdict.rule is not Rule.CLOSED:
            assert pod.warned_at is not None
        if verdict.move is Move.WARN:
            again = decide(replace(pod, warned_at=moment), moment)
            assert again.move is not Move.STOP
            assert again.stops_at == verdict.stops_at


@laws
@given(running(presence=presences()), moments)
def test_left_alone_it_comes_to_rest(life: PodLife, now: datetime) -> None:
    """Passes at their own wake-ups, each with a look, end in a stop or in nothing to wait for."""
    assert life.presence is not None
    life = replace(life, presence=replace(life.presence, busy=False), warned_at=None)
    for _ in range(PASSES_MAX):
        life = looked_at(life, now)
        verdict = decide(life, now)
        if verdict.move is Move.STOP or verdict.wake_at is None:
            return
        life = replace(life, warned_at=(life.warned_at or now) if verdict.warned else None)
        now = verdict.wake_at
    raise AssertionError(f"still {verdict}")


@laws
@given(lives(desired=Desired.STOPPED, actual=Observed.STOPPED), moments)
def test_a_stopped_pod_is_archived_in_time_and_not_before(life: PodLife, now: datetime) -> None:
    """Only what has been stopped, and wanted so, for the whole limit."""
    verdict = decide(life, now)
    after = life.limits.archive_after

    if verdict.move is Move.ARCHIVE:
        assert after is not None
        assert now >= max(life.since, life.wished_at) + after
    elif after is not None and life.known and not life.busy_with_action:
        assert now < max(life.since, life.wished_at) + after
        assert verdict.wake_at == max(life.since, life.wished_at) + after
