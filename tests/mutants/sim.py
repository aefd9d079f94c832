"""Deliberate bugs for the simulation: the measure of its oracle. Each must be caught within the step budget.

Those in the programs are production's; those in `tests/sim` break a rule that the database keeps, where the
simulation's model of it stands for the SQL.
"""

from tests.mutants.runner import Mutant
from tests.mutants.sim_chores import CHORE_MUTANTS

# Simulated steps, of which a core does thousands a second.
STEPS_MAX = 1_000_000

_STEPS = "node_agent/steps.py"
_REMOVAL = "node_agent/removal.py"
_PERFORM = "node_agent/perform.py"
_REPORTING = "node_agent/reporting.py"
_CLASSIFY = "reconciler/classify.py"
_PLAN = "reconciler/plan.py"
_DATABASE = "tests/sim/database.py"
_TABLES = "tests/sim/tables.py"
_INGEST = "tests/sim/ingest.py"
_POLICY = "reconciler/policy.py"
_POLICIES = "tests/sim/policies.py"

# By a mutant's name: the kind of seeds that its hunt begins with, where seeds of all kinds take long.
SOUGHT_BY = {
    "a number that a node has seen is given again": "forgetful",
    "an agent lets nobody go on that another one paused": "freezing",
    "an archive that was left as damaged is fallen back to": "decaying",
    "a policy undoes a newer wish": "visiting",
    "who comes while it is decided is put out": "held_up",
    "work does not keep a pod": "visiting",
    "a pod that somebody keeps is stopped": "visiting",
}


def _bug(name: str, law: str, file: str, old: str, new: str, *also: tuple[str, str, str]) -> Mutant:
    return Mutant(name, law, file, old, new, (), also)


SIM_MUTANTS: tuple[Mutant, ...] = (
    *CHORE_MUTANTS,
    # ---- the agent ----
    _bug(
        "the epoch is not compared", "LAW 5", _STEPS, "    if action.epoch < highest_epoch:", "    if False:"
    ),
    _bug(
        "removed though it changed since it was saved",
        "LAW 8",
        _REMOVAL,
        "    if proof.fingerprint != fingerprint:",
        "    if False:",
    ),
    _bug(
        "removed without a look into the store",
        "LAW 8",
        _REMOVAL,
        "        parts.archives.check(action, proof)\n        # Checking",
        "        # Checking",
    ),
    _bug(
        "whole containers are swept with the half-made ones",
        "LAW 9",
        _REMOVAL,
        "    halves = [found for found in mine if labels.is_partial(found.name)]\n",
        "    halves = [found for found in mine if not found.live]\n",
    ),
    _bug(
        "half-made things stay until the agent's next start",
        "LAW 10",
        "node_agent/survey.py",
        "        self._sweep(sight, states)\n",
        "",
    ),
    _bug(
        "containers are known by their names",
        "LAW 10",
        "node_agent/look.py",
        "    whole = [found for found in mine if not labels.is_partial(found.name)]",
        '    whole = [f for f in mine if f.name == labels.container_name(action.pod_id or "", action.epoch)]',
    ),
    _bug(
        "a volume is called whole before it is filled",
        "LAW 10",
        _PERFORM,
        "host.mark(volume, VolumeState.HALF)",
        "host.mark(volume, VolumeState.WHOLE)",
    ),
    _bug(
        "answers are forgotten once they are accepted",
        "LAW 10",
        "node_agent/results.py",
        "        if action_id in self._accepted:\n            self.add(self._accepted[action_id])\n",
        "",
    ),
    _bug(
        "no answer for what was taken back and is not here",
        "LAW 11",
        "node_agent/agent.py",
        "            if action_id not in begun:\n                self._results.cancel(action_id)\n",
        "            pass\n",
    ),
    _bug(
        # Two lines at once: a step that ends unanswered is named in the next reply once more, and what is not
        # in hand then is answered for at once.
        "what is taken back after it began is not answered for",
        "LAW 11",
        "node_agent/agent.py",
        "            if result is None:\n                self._results.cancel(action.id)\n            else:",
        "            if result is not None:",
        (
            "node_agent/workqueue.py",
            "                    continue",
            "                    begun.append(action_id)\n                    continue",
        ),
    ),
    _bug(
        "what is taken back is let go of while it is still being done",
        "LAW 11",
        "node_agent/workqueue.py",
        "                if work.begun:\n                    begun.append(action_id)\n                else:\n"
        "                    del self._works[action_id]",
        "                del self._works[action_id]",
    ),
    _bug(
        "half-made containers are reported as pods",
        "LAW 10",
        _REPORTING,
        "        if labels.is_partial(container.name):\n            continue\n",
        "",
    ),
    _bug(
        "a pod that is there and is asked for again is reported as being made",
        "I5",
        _REPORTING,
        '_BETWEEN = {\n    "start_pod"',
        '_BETWEEN = {\n    "create_pod": Observed.CREATING,\n    "start_pod"',
    ),
    _bug(
        "stopping is said, and not done",
        "LAW 7",
        _STEPS,
        "    return StopContainer(container.id) if container.live else Done()\n",
        "    return Done()\n",
    ),
    _bug(
        "an empty volume is made where there is an archive",
        "LAW 8",
        _PLAN,
        "RestoreWorkspace(archive=source(archive)) if archive else CreateWorkspace()",
        "CreateWorkspace()",
    ),
    # ---- the planner ----
    _bug(
        "a silent node is planned for as if it were there",
        "LAW 6",
        _CLASSIFY,
        "    return now - heard > limits.node_silent_after",
        "    return False",
    ),
    _bug(
        "the breaker never opens",
        "LAW 13",
        _PLAN,
        "        if self.breaker_open and verb in WITHDRAWING_VERBS:",
        "        if False and verb in WITHDRAWING_VERBS:",
    ),
    _bug(
        "any archive is taken for one of this container",
        "LAW 8",
        _CLASSIFY,
        "        return pod.archive.fingerprint == pod.observed.fingerprint",
        "        return True",
    ),
    _bug(
        "a pod with an archive is made anew",
        "LAW 8",
        _CLASSIFY,
        "        lambda f: f.must_exist and f.pod.archive is not None,",
        "        lambda f: False,",
    ),
    _bug(
        "no back-off",
        "LAW 12",
        _CLASSIFY,
        "    if failure and failure.generation == generation and failure.retry_at > now:",
        "    if False:",
    ),
    _bug(
        "a back-off that does not grow",
        "LAW 12",
        "state/backoff.py",
        "    exponent = min(max(count - 1, 0), _EXPONENT_MAX)",
        "    exponent = 0",
    ),
    _bug(
        "a step that is under way counts as done",
        "I10",
        "state/plan.py",
        "        return self.condition is Condition.SETTLED",
        "        return self.condition in (Condition.SETTLED, Condition.BUSY)",
    ),
    _bug(
        "what runs counts as stopped",
        "I10",
        _CLASSIFY,
        "        lambda f: _is_going(f) and f.state in _UP,",
        "        lambda f: f.pod.desired is not Desired.STOPPED and _is_going(f) and f.state in _UP,",
    ),
    _bug(
        "what starts counts as running",
        "I10",
        _CLASSIFY,
        "        lambda f: f.pod.desired is Desired.RUNNING and f.state is Observed.RUNNING,",
        "        lambda f: f.pod.desired is Desired.RUNNING,",
    ),
    _bug(
        "a container of any placement stands for the pod",
        "LAW 5",
        "state/observed.py",
        '    return (row["live_node_id"], row["live_epoch"]) == (known.node_id, epoch)',
        "    return True",
    ),
    _bug(
        "nobody is told of what vanished",
        "I10",
        "state/observed.py",
        '    if held and row["open_verb"] != Verb.REMOVE_POD:',
        "    if False:",
    ),
    # ---- the database's rules ----
    _bug(
        "what a node may be doing is closed when it is taken back",
        "LAW 11",
        _DATABASE,
        "        if not row.sent:\n            self.close(row, ActionState.SUPERSEDED)",
        "        self.close(row, ActionState.SUPERSEDED)",
    ),
    _bug(
        "an archive of a placement that is over counts",
        "LAW 5",
        _TABLES,
        "        if workspace.placement != Placement(row.node_id, action.epoch):",
        "        if False:",
        # Two lines at once: when a placement is over, nothing of it is open any more that could be committed.
        (
            _DATABASE,
            "            self.close(action, ActionState.SUPERSEDED)\n        self.given_up",
            "            pass\n        self.given_up",
        ),
    ),
    _bug(
        "the number of an attempt is used again",
        "LAW 10",
        _DATABASE,
        "        attempt = self.attempts[step.target] = self.attempts.get(step.target, 0) + 1",
        "        attempt = self.attempts[step.target] = 1",
    ),
    _bug(
        "an older report is believed",
        "LAW 11",
        _INGEST,
        "            newer = request.sequence > node.sequence",
        "            newer = True",
    ),
    _bug(
        "a former boot of an agent is believed",
        "LAW 11",
        _INGEST,
        "            newer = request.boot_id > node.boot_id and (silent or not other)",
        "            newer = silent or (request.boot_id > node.boot_id and not other)",
    ),
    _bug(
        "another machine is believed beside the one that is heard",
        "LAW 5",
        _INGEST,
        "            newer = request.boot_id > node.boot_id and (silent or not other)",
        "            newer = request.boot_id > node.boot_id",
    ),
    _bug(
        "a number that a node has seen is given again",
        "LAW 5",
        "tests/sim/forgotten.py",
        "            row.epoch, row.due_at = epoch + 1, db.clock()",
        "            row.due_at = db.clock()",
    ),
    _bug(
        "who cannot be let go on is left paused",
        "LAW 10",
        "node_agent/freezer.py",
        "                self._thaw_at_last()",
        "                self.thaw()",
    ),
    _bug(
        "an agent lets nobody go on that another one paused",
        "LAW 10",
        "node_agent/agent.py",
        "            Freezer(self._parts.runtime, self._parts.settings.data_dir / FROZEN).thaw()",
        "            Freezer(self._parts.runtime, self._parts.settings.data_dir / FROZEN)",
    ),
    _bug(
        "a damaged archive is gone by for ever",
        "LAW 8",
        _INGEST,
        " and self._db.note_damage(row, owner):",
        " and False:",
    ),
    _bug(
        "nobody falls back to the archive before a damaged one",
        "LAW 8",
        _TABLES,
        "        if not source_is_there and not (again and self._may_fall_back()):",
        "        if not source_is_there:",
    ),
    _bug(
        "an archive that was left as damaged is fallen back to",
        "LAW 8",
        _TABLES,
        " and (key, of_number) not in self.damaged\n",
        "\n",
    ),
    # ---- policies ----
    _bug(
        "a policy undoes a newer wish",
        "LAW 3",
        _POLICIES,
        "        if self._db.pods[life.pod_id].generation != life.generation:\n            return False\n",
        "",
        # Two lines at once: what is wished of a pod makes it due again.
        (_POLICIES, "        if due_at is not None and due_at <= self._db.clock():", "        if False:"),
    ),
    _bug(
        "who comes while it is decided is put out",
        "I14",
        _POLICIES,
        "        if due_at is not None and due_at <= self._db.clock():",
        "        if False:",
    ),
    _bug(
        "no grace after the last tab",
        "I14",
        _POLICY,
        "        last = _last(begun, seen.gone_at, seen.heartbeat_at)",
        "        last = begun",
    ),
    _bug(
        "work does not keep a pod",
        "I14",
        _POLICY,
        "    deadline = _with_work(life, seen, idle)\n",
        "    deadline = idle\n",
    ),
    _bug(
        "who is there is concluded from what was so before the deadline",
        "LAW 6",
        _POLICY,
        "(seen is None or seen.seen_at < stops_at)",
        "seen is None",
    ),
    _bug(
        "a pod that somebody keeps is stopped",
        "I14",
        _POLICY,
        "life.keep_until is None or life.keep_until <= deadline.at",
        "True",
    ),
    _bug(
        "a pod that has come to rest is never looked at again",
        "LAW 1",
        "tests/sim/ingest.py",
        "                db.policies.look_at(pod.id)\n",
        "                pass\n",
    ),
    # ---- going back ----
    _bug(
        # Two lines at once: it is looked at again when it is written down.
        "a pod goes back before what is there is saved",
        "LAW 8",
        "reconciler/restoring.py",
        "    gone = facts.state is Observed.ABSENT and pod.open_action is None",
        "    gone = True",
        (
            "tests/sim/restorations.py",
            "        if before != line.archive_id_before or held:",
            "        if before != line.archive_id_before:",
        ),
    ),
    _bug(
        "a pod that goes back is not put aside",
        "I6",
        "reconciler/restoring.py",
        "(pod.restoration or workspace.restoration)",
        "workspace.restoration",
    ),
)
