"""The policies on a real database: what nodes say of who is there becomes a wish, an event, or nothing."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from reconciler.lives import Looked, look
from reconciler.policy import decide
from state import pods, policies, presence
from state.lifecycle import LifeLimits, Move
from state.model import Desired
from state.presence_wire import PodPresence, PresenceUp
from state.snapshot import database_clock
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode

HOUR_S = 3600.0
LIMITS = LifeLimits(
    closed_grace=timedelta(minutes=5),
    idle_limit=timedelta(hours=1),
    busy_max=timedelta(hours=12),
    archive_after=timedelta(hours=24),
)


@dataclass
class Scene:
    """One pod that runs on a node, and what the node says of who is there."""

    control: Control
    node: ScriptedNode
    pod_id: str
    limits: LifeLimits = LIMITS
    said: dict[str, Any] = field(default_factory=dict)

    def say(self, **words: Any) -> None:
        """One sync in which the node tells of a look."""
        report = self.node.pods[self.pod_id]
        seen = PodPresence(pod_id=self.pod_id, epoch=report.epoch, started_at=report.started_at, **words)
        self.control.sync(self.node, presence=PresenceUp(pods=(seen,)))

    def look(self) -> Looked:
        """Every pass that is due now."""
        total = looked = look(self.control.db, self.control.limits, self.limits, self.control.leading)
        while looked.pods and not looked.looks_asked:
            looked = look(self.control.db, self.control.limits, self.limits, self.control.leading)
            total = Looked(**{name: getattr(total, name) + value for name, value in looked.fields().items()})
        return total

    @property
    def row(self) -> dict[str, Any]:
        """The pod's row."""
        return self.control.pod_row(self.pod_id)

    @property
    def policy(self) -> dict[str, Any]:
        """The pod's row of pod_policy."""
        return self.control.row("SELECT * FROM pod_policy WHERE pod_id = %s", self.pod_id)

    def last_event(self, kind: str) -> dict[str, Any]:
        """The newest event of a kind."""
        return self.control.events(kind)[-1]

    def long_ago(self, seconds: float = 100 * HOUR_S) -> None:
        """The pod was made, wished and started so long before now; only tests turn clocks back."""
        with self.control.db.transaction() as conn:
            conn.execute("ALTER TABLE pod DISABLE TRIGGER USER")
            conn.execute("UPDATE pod SET desired_at = desired_at - make_interval(secs => %s)", (seconds,))
            conn.execute("ALTER TABLE pod ENABLE TRIGGER USER")
            conn.execute("UPDATE pod_observed SET since = since - make_interval(secs => %s)", (seconds,))
            conn.execute("UPDATE pod_policy SET next_look_at = now()")


@pytest.fixture
def scene(control: Control) -> Scene:
    """Alice's pod, up since long ago, with an untouched past."""
    node = control.join("node-1")
    pod_id = control.pod("alice")
    control.settle(node)
    scene = Scene(control, node, pod_id)
    scene.long_ago()
    return scene


def test_a_pod_whose_last_tab_was_closed_is_stopped_with_a_reason(scene: Scene) -> None:
    """The wish is the policy's, in the same column as anybody's, with its event; the plan then stops it."""
    scene.say(connections=2, active_age_s=1)
    scene.say(connections=0, gone_for_s=301)

    assert scene.look().wishes == 1
    event = scene.last_event("desired")
    assert (event["actor"], event["to_value"]) == ("policy:closed", "stopped")
    assert event["reason"] == "the last tab was closed 5 min before"
    assert scene.row["desired_reason"] == event["reason"]
    assert scene.control.settle(scene.node) == ["stop_pod"]


def test_within_the_grace_nothing_happens_and_the_end_is_known(scene: Scene) -> None:
    """The pod says when it will be stopped, and is looked at again then, not before."""
    scene.say(connections=0, gone_for_s=60)

    assert scene.look().wishes == 0
    left = scene.policy["stops_at"] - database_clock(scene.control.db)
    assert timedelta(minutes=3) < left <= timedelta(minutes=4)
    assert scene.policy["next_look_at"] == scene.policy["stops_at"]
    assert scene.look() == Looked()


def test_an_open_untouched_tab_is_warned_and_then_stopped(scene: Scene) -> None:
    """A warning first, which the node is told of; the stop only when it has stood, on a fresh look."""
    scene.say(connections=2, active_age_s=HOUR_S + 1)
    assert scene.look().warnings == 1
    (warning,) = presence.for_node(scene.control.db, "node-1", ()).warnings or ()
    assert warning.pod_id == scene.pod_id
    assert 290 < warning.stops_in_s <= 300
    assert scene.last_event("warned")["actor"] == "policy:idle"

    with scene.control.db.transaction() as conn:
        conn.execute("UPDATE pod_policy SET warned_at = warned_at - interval '300 s', next_look_at = now()")
    assert scene.look().looks_asked == 1
    assert presence.looks_asked(scene.control.db) == {"node-1": frozenset({scene.pod_id})}
    scene.say(connections=2, active_age_s=HOUR_S + 301)

    assert scene.look().wishes == 1
    assert scene.last_event("desired")["actor"] == "policy:idle"
    assert presence.looks_asked(scene.control.db) == {}


def test_a_touch_takes_the_warning_away(scene: Scene) -> None:
    """Whoever comes back to the keys is left alone, and their editor is told."""
    scene.say(connections=2, active_age_s=HOUR_S + 1)
    scene.look()
    scene.say(connections=2, active_age_s=0.5)

    assert scene.look().wishes == 0
    assert scene.policy["warned_at"] is None
    assert presence.for_node(scene.control.db, "node-1", ()).warnings == ()


def test_the_button_in_the_editor_keeps_the_pod(scene: Scene) -> None:
    """An answer that names the standing warning extends, as the editor's; an old one does nothing."""
    scene.say(connections=2, active_age_s=HOUR_S + 1)
    scene.look()
    db = scene.control.db
    (warning,) = presence.for_node(db, "node-1", ()).warnings or ()

    assert not policies.answer(db, scene.pod_id, "node-1", "2020-01-01T00:00:00+00:00", timedelta(hours=1))
    assert not policies.answer(db, scene.pod_id, "node-1", "2099-01-01T00:00:00+00:00", timedelta(hours=1))
    assert not policies.answer(db, scene.pod_id, "node-2", warning.id, timedelta(hours=1))
    assert policies.answer(db, scene.pod_id, "node-1", warning.id, timedelta(hours=1))
    scene.look()

    assert scene.last_event("desired")["actor"] == f"editor:{scene.pod_id}"
    assert scene.policy["warned_at"] is None
    assert scene.policy["stops_at"] == scene.row["keep_until"]


def test_the_hand_on_the_button_does_not_void_the_answer(scene: Scene) -> None:
    """The click is use, which takes the warning away; the answer comes after that, counts, and only once."""
    scene.say(connections=2, active_age_s=HOUR_S + 1)
    scene.look()
    db = scene.control.db
    (warning,) = presence.for_node(db, "node-1", ()).warnings or ()
    scene.say(connections=2, active_age_s=0.5)
    scene.look()
    assert scene.policy["warned_at"] is None

    assert policies.answer(db, scene.pod_id, "node-1", warning.id, timedelta(hours=1))
    kept_until = scene.row["keep_until"]
    assert policies.answer(db, scene.pod_id, "node-1", warning.id, timedelta(hours=1))

    assert scene.last_event("desired")["actor"] == f"editor:{scene.pod_id}"
    assert scene.row["keep_until"] == kept_until
    for never_told in ("", "soon", "9999-12-31T23:59:59.999999", "2020-01-01"):
        assert not policies.answer(db, scene.pod_id, "node-1", never_told, timedelta(hours=1))


def test_work_without_a_tab_is_kept_until_its_maximum(scene: Scene) -> None:
    """A build goes on alone for hours; for longer than it may it does not."""
    scene.say(connections=0, gone_for_s=6 * HOUR_S, busy_age_s=0, busy_with="90 % of a CPU")
    assert scene.look().wishes == 0
    assert scene.policy["rule"] == "busy"

    scene.limits = LifeLimits(busy_max=timedelta(hours=5), warning=timedelta(microseconds=2))
    with scene.control.db.transaction() as conn:
        conn.execute("UPDATE pod_policy SET warned_at = now(), next_look_at = now()")
    scene.say(connections=0, gone_for_s=6 * HOUR_S, busy_age_s=0, busy_with="90 % of a CPU")
    scene.look()
    assert scene.last_event("desired")["actor"] == "policy:busy"


def test_a_newer_wish_wins(scene: Scene) -> None:
    """What was decided on an older generation is void: whoever asked last is right."""
    scene.say(connections=0, gone_for_s=301)
    db, leading = scene.control.db, scene.control.leading
    (life,) = policies.read_lives(db, [scene.pod_id], LIMITS, frozenset({"node-1"}))
    now = database_clock(db)
    verdict = decide(life, now)
    until = now + timedelta(minutes=30)
    policies.extend(db, scene.pod_id, until, actor="api:revpro", reason="the course goes on")

    assert policies.record(db, leading.leadership, (life, verdict), now) is False
    assert scene.row["desired_state"] == "running"
    assert scene.look().wishes == 0
    assert scene.policy["stops_at"] == until


def test_who_comes_while_it_is_decided_is_not_put_out(scene: Scene) -> None:
    """A reconciler that is slow decides on what it knew: what it has been told since makes that void."""
    scene.say(connections=0, gone_for_s=301)
    db, leading = scene.control.db, scene.control.leading
    assert policies.claim_due(db, 10, timedelta(seconds=30)) == [scene.pod_id]
    (life,) = policies.read_lives(db, [scene.pod_id], LIMITS, frozenset({"node-1"}))
    now = database_clock(db)
    verdict = decide(life, now)
    assert verdict.move is Move.STOP
    scene.say(connections=2, active_age_s=0.1)

    assert policies.record(db, leading.leadership, (life, verdict), now) is False
    assert scene.row["desired_state"] == "running"
    assert scene.look().wishes == 0


def test_a_silent_node_says_nothing_of_its_pods(scene: Scene) -> None:
    """Unknown is not absent (LAW 6): what a node that has gone quiet said last stops nothing."""
    scene.say(connections=0, gone_for_s=301)
    with scene.control.db.transaction() as conn:
        conn.execute("UPDATE node_lease SET last_seen_at = now() - interval '60 s'")
    leading = scene.control.leading
    scene.control.leading = type(leading)(leading.leadership, leading.since - timedelta(minutes=5))

    assert scene.look().wishes == 0
    assert scene.row["desired_state"] == "running"


def test_while_most_nodes_are_silent_nothing_is_wished(scene: Scene) -> None:
    """If everything looks dead we suspect ourselves (LAW 13): also pods of nodes that are heard run on."""
    for node_id in ("node-2", "node-3"):
        scene.control.join(node_id)
    scene.say(connections=0, gone_for_s=301)
    with scene.control.db.transaction() as conn:
        conn.execute("UPDATE node_lease SET last_seen_at = now() - interval '60 s' WHERE node_id <> 'node-1'")
    leading = scene.control.leading
    scene.control.leading = type(leading)(leading.leadership, leading.since - timedelta(minutes=5))

    assert scene.look().wishes == 0
    assert scene.row["desired_state"] == "running"


def test_a_pod_of_an_agent_that_says_nothing_runs_on(scene: Scene) -> None:
    """N-1: a node that does not tell of presence has no pod stopped for want of it."""
    assert scene.look().wishes == 0
    assert scene.policy["reason"] == "who is there is not known now"


def test_what_is_set_for_a_user_or_a_pod_comes_before_the_default(scene: Scene) -> None:
    """The pod's own limit, or else its user's, or else the installation's; 0 is none."""
    scene.say(connections=0, gone_for_s=301)
    with scene.control.db.transaction() as conn:
        conn.execute("UPDATE workspace SET closed_grace_s = 0")
    assert scene.look().wishes == 0
    scene.say(connections=0, gone_for_s=301)
    with scene.control.db.transaction() as conn:
        conn.execute("UPDATE pod SET closed_grace_s = 200")
    scene.long_ago()

    assert scene.look().wishes == 1
    assert scene.last_event("limits")["detail"]["changed"] == {"closed_grace_s": [None, 0]}


def test_a_stopped_pod_is_archived_after_its_time(scene: Scene) -> None:
    """Stopped and wanted stopped for a day: archived, by the policy, and not before."""
    scene.control.want(scene.pod_id, Desired.STOPPED)
    scene.control.settle(scene.node)
    assert scene.look().wishes == 0
    scene.long_ago(25 * HOUR_S)

    assert scene.look().wishes == 1
    event = scene.last_event("desired")
    assert (event["actor"], event["to_value"], event["reason"]) == (
        "policy:archive",
        "archived",
        "it has been stopped for 24 h",
    )


def test_beats_ring_no_bell_and_do_not_touch_the_pod(scene: Scene, database_url: str) -> None:
    """Every half a minute for each running pod: one row of its own, no NOTIFY, no look by the policies."""
    import psycopg

    scene.say(connections=2, active_age_s=1)
    scene.look()
    before = scene.row
    with psycopg.connect(database_url, autocommit=True) as ear:
        ear.execute(f"LISTEN {presence.CHANNEL}")
        scene.say(connections=2, active_age_s=3)
        heard = list(ear.notifies(timeout=0.2))

    assert heard == []
    assert scene.row == before
    assert scene.look() == Looked()


def test_an_extension_is_for_pods_that_are_wanted_running(scene: Scene) -> None:
    """It never wakes a pod, and never shortens an earlier one."""
    db, now = scene.control.db, database_clock(scene.control.db)
    late, early = now + timedelta(hours=2), now + timedelta(hours=1)

    assert policies.extend(db, scene.pod_id, late, actor="api:x", reason="x") == late
    assert policies.extend(db, scene.pod_id, early, actor="api:x", reason="x") == late
    scene.control.want(scene.pod_id, Desired.STOPPED)
    with pytest.raises(policies.NotRunning):
        policies.extend(db, scene.pod_id, late, actor="api:x", reason="x")
    with pytest.raises(pods.PodNotFound):
        policies.extend(db, "p-zzzzzzzzzzzz", late, actor="api:x", reason="x")
