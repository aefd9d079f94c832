"""Deliberate bugs of who is there, and of the policies that follow from it."""

from tests.mutants.runner import Mutant

_LAWS = "tests/property/test_policy_laws.py"
_POLICIES = "tests/integration/test_policies.py"
_PRESENCE = "tests/integration/test_agent_presence.py"

LIFE_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "a stop on a look from before its deadline",
        "LAW 6",
        "reconciler/policy.py",
        "(seen is None or seen.seen_at < stops_at)",
        "(seen is None)",
        (f"{_LAWS}::test_a_stop_needs_a_look_from_after_its_deadline",),
    ),
    Mutant(
        "a silent node's pods are taken for unused",
        "LAW 6",
        "reconciler/policy.py",
        '    if not life.known:\n        return Verdict(Move.LEAVE, "its node',
        '    if False:\n        return Verdict(Move.LEAVE, "its node',
        (f"{_LAWS}::test_what_is_not_known_stops_nothing",),
    ),
    Mutant(
        "an old look still counts",
        "LAW 6",
        "reconciler/policy.py",
        "    return seen if now - seen.seen_at <= life.limits.fresh else None",
        "    return seen",
        (f"{_LAWS}::test_what_is_not_known_stops_nothing",),
    ),
    Mutant(
        "work is no veto",
        "policy",
        "reconciler/policy.py",
        "    if seen.busy:",
        "    if False:",
        (f"{_LAWS}::test_work_is_not_stopped_below_its_maximum",),
    ),
    Mutant(
        "a late warning is none",
        "policy",
        "reconciler/policy.py",
        "        stops_at = first.at if life.warned_at is None else max(first.at, life.warned_at + notice)",
        "        stops_at = first.at",
        (f"{_LAWS}::test_an_open_tab_is_warned_for_as_long_as_was_said",),
    ),
    Mutant(
        "keeping a pod brings its end nearer",
        "policy",
        "reconciler/policy.py",
        "life.keep_until <= deadline.at",
        "life.keep_until >= deadline.at",
        (f"{_LAWS}::test_a_kept_pod_is_kept",),
    ),
    Mutant(
        "a policy overrules a newer wish",
        "LAW 3",
        "state/policies.py",
        # Two lines at once: what is wished of a pod makes it due again.
        'pod is None or pod["generation"] != life.generation or pod["is_due_again"]',
        "pod is None",
        (f"{_POLICIES}::test_a_newer_wish_wins",),
    ),
    Mutant(
        "who comes while it is decided is put out",
        "policy",
        "state/policies.py",
        ' or pod["is_due_again"]',
        "",
        (f"{_POLICIES}::test_who_comes_while_it_is_decided_is_not_put_out",),
    ),
    Mutant(
        "a new look at a pod knows nothing of its work, and says that there is none",
        "policy",
        "node_agent/presence.py",
        " or not self._knows_of_work(look)",
        "",
        (
            "tests/unit/node_agent/test_presence.py::test_nothing_is_told_before_it_is_known_whether_work_goes_on",
        ),
    ),
    Mutant(
        "the policies know no mass failure",
        "LAW 13",
        "reconciler/lives.py",
        "    if is_breaker_open(world, now, limits):",
        "    if False:",
        (f"{_POLICIES}::test_while_most_nodes_are_silent_nothing_is_wished",),
    ),
    Mutant(
        "beats ring the bell",
        "LAW 1",
        "state/presence.py",
        "        if changed_coarsely(before, after) or _is_waited_for(row, after):",
        "        if True:",
        (f"{_POLICIES}::test_beats_ring_no_bell_and_do_not_touch_the_pod",),
    ),
    Mutant(
        "a warning's answer is good for any warning",
        "policy",
        "state/policies.py",
        "stops_at is None or not _was_told(conn, pod_id, row, stops_at)",
        "stops_at is None",
        (f"{_POLICIES}::test_the_hand_on_the_button_does_not_void_the_answer",),
    ),
    Mutant(
        "a pod's own connections to itself count as tabs",
        "policy",
        "node_agent/proc.py",
        ' and not _is_loopback(columns[2].partition(":")[0])',
        "",
        (f"{_PRESENCE}::test_connections_from_outside_are_counted_and_our_own_looks_are_not",),
    ),
    Mutant(
        "a pipe in a pod stops the looks at all pods",
        "LAW 12",
        "node_agent/editor_files.py",
        "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK",
        "os.O_RDONLY | os.O_NOFOLLOW",
        (f"{_PRESENCE}::test_a_strangers_files_harm_nobody",),
    ),
)
