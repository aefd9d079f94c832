"""Mutants of lost nodes, failover and fences."""

from tests.mutants.runner import Mutant

_LAWS = "tests/property/test_failover_laws.py"
_LOST = "tests/integration/test_node_lost.py"

FLEET_MUTANTS = (
    Mutant(
        "a placement is given up as soon as its node is silent",
        "LAW 6",
        "reconciler/failover.py",
        "    return now - node.last_seen_at > limits.failover_after\n",
        "    return True\n",
        (f"{_LAWS}::test_a_placement_is_given_up_only_with_proof",),
    ),
    Mutant(
        "a pod without a fence goes on elsewhere",
        "LAW 6",
        "reconciler/failover.py",
        "    return not up or (pod.observed is not None and pod.observed.self_fence_s is not None)\n",
        "    return True\n",
        (f"{_LAWS}::test_a_placement_is_given_up_only_with_proof",),
    ),
    Mutant(
        "the proof is not looked at again when a placement is given up",
        "LAW 5",
        "state/abandon.py",
        "WHEN 'declared_lost' THEN n.lost_at IS NOT NULL AND coalesce(l.last_seen_at <= n.lost_at, true)",
        "WHEN 'declared_lost' THEN true",
        (f"{_LOST}::test_a_plan_to_give_up_a_node_that_has_just_answered_is_void",),
    ),
    Mutant(
        "pods of an older epoch run on",
        "LAW 5",
        "node_agent/fencer.py",
        "    if read.epoch < newest:\n",
        "    if False:\n",
        ("tests/unit/node_agent/test_fencer.py",),
    ),
    Mutant(
        "a pod that is cut off runs on behind its fence",
        "LAW 6",
        "node_agent/fencer.py",
        "    if fence_s is not None and silent_s > fence_s:\n",
        "    if fence_s is None:\n",
        ("tests/unit/node_agent/test_fencer.py",),
    ),
)
