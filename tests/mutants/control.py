"""The control plane's deliberate bugs: what is due, what is written down, and what nodes are believed."""

from tests.mutants.runner import Mutant

_PLAN = "tests/property/test_plan_laws.py"
_OBSERVED = "tests/unit/state/test_observed.py"
_OUTBOX = "tests/integration/test_outbox.py"
_REPORTS = "tests/integration/test_reports.py"
_TAKE_BACK = "tests/integration/test_take_back.py"
_RESYNC = "tests/integration/test_resync.py"
_RULES = "state/migrations/sql/0001_rules.sql"

CONTROL_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "a wish rings the bell and nothing more",
        "LAW 1",
        _RULES,
        "    NEW.next_check_at := now();\n    NEW.deleted_at",
        "    NEW.deleted_at",
        (f"{_OUTBOX}::test_a_step_for_an_older_generation_is_refused",),
    ),
    Mutant(
        "a new term walks through nothing",
        "LAW 1",
        "reconciler/loop.py",
        "            self._resync.ask()",
        "            pass",
        (f"{_RESYNC}::test_a_new_term_walks_through_everything",),
    ),
    Mutant(
        "a resync ends with its first page",
        "LAW 1",
        "reconciler/loop.py",
        "        self._after = workspace_ids[-1] if len(workspace_ids) == limit else None",
        "        self._after = None",
        (f"{_RESYNC}::test_a_walk_comes_by_everything_once",),
    ),
    Mutant(
        "what came due during a pass is forgotten",
        "LAW 1",
        "state/outbox.py",
        "CASE WHEN p.next_check_at <= clock_timestamp() THEN p.next_check_at ELSE d.wake_at END",
        "d.wake_at",
        (f"{_OUTBOX}::test_what_changes_during_a_pass_is_looked_at_again",),
    ),
    Mutant(
        "pods that are left alone get no reason",
        "LAW 2",
        "reconciler/plan.py",
        "        this_pass.decisions.append(_plan_pod(this_pass, facts, placed))",
        "        decision = _plan_pod(this_pass, facts, placed)\n"
        "        this_pass.decisions.extend([decision] if not decision.satisfied else [])",
        (f"{_PLAN}::test_every_pod_gets_exactly_one_reason",),
    ),
    Mutant(
        "a placement without compare-and-set",
        "LAW 5",
        "state/outbox.py",
        " AND w.epoch = wanted.epoch_before\n",
        "\n",
        (f"{_OUTBOX}::test_a_plan_of_the_past_places_nobody_twice",),
    ),
    Mutant(
        "a step of any epoch is enqueued",
        "LAW 5",
        "state/outbox.py",
        "AND pl.node_id = w.node_id AND pl.epoch = w.epoch\n",
        "AND pl.node_id = w.node_id\n",
        (f"{_OUTBOX}::test_a_step_of_an_older_placement_is_refused",),
    ),
    Mutant(
        "a step for an older wish is enqueued",
        "LAW 5",
        "state/outbox.py",
        " OR p.generation = w.generation\n",
        " OR true\n",
        (f"{_OUTBOX}::test_a_step_for_an_older_generation_is_refused",),
    ),
    Mutant(
        "a leader whose term is over writes",
        "LAW 5",
        "state/outbox.py",
        '        assert_leading(conn, leadership)\n        conn.execute(_LOCK_WORKSPACES, {"ids": work',
        '        conn.execute(_LOCK_WORKSPACES, {"ids": work',
        (f"{_OUTBOX}::test_a_leader_whose_term_is_over_writes_nothing",),
    ),
    Mutant(
        "an archive of a placement that is over counts",
        "LAW 5",
        "state/archives.py",
        "       AND pl.released_at IS NULL\n",
        "",
        (f"{_REPORTS}::test_an_archive_of_a_placement_that_is_over_is_not_used",),
    ),
    Mutant(
        "what a node may be doing is closed when it is taken back",
        "LAW 11",
        "state/outbox.py",
        "CASE WHEN a.sent_at IS NULL THEN 'superseded' ELSE 'open' END",
        "'superseded'",
        (f"{_TAKE_BACK}::test_what_a_node_was_given_stays_open_until_it_answers",),
    ),
    Mutant(
        "a node is not asked about what it may never have got",
        "LAW 11",
        "state/delivery.py",
        "     WHERE a.node_id = %(node)s AND a.state = 'open' AND a.taken_back_at IS NOT NULL\n",
        "     WHERE a.id::text = ANY(%(in_hand)s) AND a.state = 'open' AND a.taken_back_at IS NOT NULL\n",
        (f"{_TAKE_BACK}::test_a_node_that_never_got_it_is_asked_all_the_same",),
    ),
    Mutant(
        "a placement is freed while a container is there",
        "LAW 8",
        "state/outbox.py",
        "       AND pl.released_at IS NULL\n       AND NOT EXISTS (SELECT 1 FROM action a",
        "       AND pl.released_at IS NULL\n        OR NOT EXISTS (SELECT 1 FROM action a",
        (f"{_OUTBOX}::test_a_placement_is_not_freed_while_anything_is_there",),
    ),
    Mutant(
        "no report is taken for an empty node",
        "LAW 9",
        "state/reports.py",
        "    if request.report is None:\n        return Ingested(current=True)\n"
        "    changed = _take_in(conn, request, request.report, limits, jitter)",
        "    changed = _take_in(conn, request, request.report or Report(), limits, jitter)",
        (f"{_REPORTS}::test_a_node_without_an_engine_only_shows_life",),
    ),
    Mutant(
        "unknown containers are told to nobody",
        "LAW 9",
        "state/observed.py",
        "    result.present.extend(_odd_pods(known, reports))\n",
        "",
        (f"{_OBSERVED}::test_unknown_stale_and_strange_containers_are_told_apart",),
    ),
    Mutant(
        "a node whose engine is away is worked with",
        "LAW 9",
        "reconciler/classify.py",
        "lambda f: f.engine_error is not None, _why_engine_away",
        "lambda f: False, _why_engine_away",
        (f"{_PLAN}::test_nothing_is_done_for_a_lone_pod_whose_engine_is_away",),
    ),
    Mutant(
        "an answer to a closed action counts",
        "LAW 10",
        "state/results.py",
        "      FROM action WHERE node_id = %(node)s AND state = 'open' AND id::text = ANY(%(ids)s)",
        "      FROM action WHERE node_id = %(node)s AND id::text = ANY(%(ids)s)",
        (f"{_REPORTS}::test_a_result_of_a_closed_or_unknown_action_is_accepted_without_effect",),
    ),
    Mutant(
        "what an agent forgot is not sent again",
        "LAW 10",
        "state/delivery.py",
        "AND a.state = 'open' AND NOT (a.id::text = ANY(%(in_hand)s))",
        "AND a.state = 'open' AND a.sent_at IS NULL AND NOT (a.id::text = ANY(%(in_hand)s))",
        (f"{_OUTBOX}::test_actions_reach_their_node_once_and_again_after_it_forgot_them",),
    ),
    Mutant(
        "an older report is believed",
        "LAW 11",
        "state/lease.py",
        "THEN l.sequence < excluded.sequence\n",
        "THEN true\n",
        (f"{_REPORTS}::test_an_older_report_of_the_same_boot_is_dropped",),
    ),
    Mutant(
        "a report of an earlier boot is believed",
        "LAW 11",
        "state/lease.py",
        "     WHERE NOT l.former_boots ? excluded.boot_id\n",
        "     WHERE true\n",
        (f"{_REPORTS}::test_a_former_boot_stays_former_however_quiet_the_node_is",),
    ),
    Mutant(
        "results are taken without a report",
        "LAW 11",
        "state/reports.py",
        "        return Ingested(current=True)\n    changed",
        "        return Ingested(current=True, accepted=tuple(line.action_id for line in request.results))\n"
        "    changed",
        (f"{_REPORTS}::test_a_node_without_an_engine_only_shows_life",),
    ),
    Mutant(
        "one bad workspace stops the pass",
        "LAW 12",
        "reconciler/tick.py",
        "    return _one_by_one(db, limits, leading, now, workspace_ids)\n",
        "    return TickOutcome()\n",
        (f"{_OUTBOX}::test_a_workspace_that_cannot_be_read_is_parked_alone",),
    ),
    Mutant(
        "one bad action holds up its node",
        "LAW 12",
        "state/delivery.py",
        "    except ValueError as error:",
        "    except KeyError as error:",
        (f"{_OUTBOX}::test_an_action_that_cannot_be_read_does_not_hold_up_its_node",),
    ),
    Mutant(
        "new pods go where no engine answers",
        "LAW 12",
        "reconciler/placement.py",
        " and node.engine_error is None]",
        "]",
        ("tests/integration/test_engine_away.py::test_others_go_to_other_nodes",),
    ),
)
