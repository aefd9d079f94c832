"""The database's deliberate bugs."""

from tests.mutants.runner import Mutant

_RULES = "tests/integration/test_state_rules.py"
_GENERATIONS = "tests/integration/test_state_generations.py"
_ADMIN = "tests/integration/test_state_admin.py"
_SCHEMA = "tests/integration/test_state_schema.py"
_REGISTERS = "tests/integration/test_state_registers.py"
_PODS = "tests/integration/test_state_pods.py"
_SQL = "state/migrations/sql"

STATE_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "anybody writes the reconciler's columns",
        "LAW 3",
        f"{_SQL}/0001_rules.sql",
        "    IF decided AND NOT session_is('reconciler') THEN",
        "    IF false THEN",
        (f"{_RULES}::test_a_person_changes_no_column_of_anothers",),
    ),
    Mutant(
        "admins are granted a column of the reconciler's",
        "LAW 3",
        f"{_SQL}/0008_desk.sql",
        "archive_after_s, keep_until}');",
        "archive_after_s, keep_until, reason}');",
        (f"{_SCHEMA}::test_admins_may_change_just_the_desired_columns",),
    ),
    Mutant(
        "the desk acts with its owner's rights",
        "LAW 3",
        f"{_SQL}/0001_people.sql",
        " WITH (security_invoker) AS SELECT",
        " AS SELECT",
        (f"{_ADMIN}::test_the_desk_grants_nothing_by_itself",),
    ),
    Mutant(
        "an admin acts in another's name",
        "LAW 3",
        f"{_SQL}/0001_rules.sql",
        "has_table_privilege(session_user, 'public.event', 'INSERT')",
        "true",
        (f"{_ADMIN}::test_nobody_writes_history_in_anothers_name",),
    ),
    Mutant(
        "a change of limits is no new generation",
        "LAW 4",
        f"{_SQL}/0001_rules.sql",
        "    IF NOT wants_anew THEN",
        "    IF NEW.desired_state = OLD.desired_state THEN",
        (f"{_SCHEMA}::test_each_desired_column_but_the_reason_makes_a_generation",),
    ),
    Mutant(
        "whoever asks all the time undoes the back-off",
        "LAW 12",
        "state/backoff.py",
        "failure.retry_at > now + RETRY_IS_SOON",
        "True",
        (f"{_PODS}::test_what_is_worth_asking_again",),
    ),
    Mutant(
        "a forgotten WHERE passes",
        "LAW 4",
        f"{_SQL}/0001_rules.sql",
        "    IF changed > most AND",
        "    IF false AND",
        (_GENERATIONS, _ADMIN),
    ),
    Mutant(
        "two open actions for one target",
        "LAW 4",
        f"{_SQL}/0001_tables.sql",
        "CREATE UNIQUE INDEX action_one_open_per_target",
        "CREATE INDEX action_one_open_per_target",
        (f"{_RULES}::test_a_target_has_one_open_action_and_a_workspace_one_placement",),
    ),
    Mutant(
        "an epoch may shrink",
        "LAW 5",
        f"{_SQL}/0001_rules.sql",
        "    IF NEW.epoch < OLD.epoch THEN",
        "    IF false THEN",
        (f"{_RULES}::test_an_epoch_only_grows",),
    ),
    Mutant(
        "a link to where the pod was before",
        "LAW 5",
        "state/pods.py",
        "AND o.node_id = pl.node_id AND o.epoch = pl.epoch",
        "AND o.node_id = pl.node_id",
        (f"{_PODS}::test_there_is_access_only_while_the_right_node_sees_it_running",),
    ),
    Mutant(
        "a new term begins in the middle of a record",
        "LAW 5",
        "state/leader.py",
        "expires_at > clock_timestamp() FOR SHARE",
        "expires_at > clock_timestamp()",
        (f"{_REGISTERS}::test_nobody_takes_over_in_the_middle_of_a_record",),
    ),
    Mutant(
        "a lease that ran out still leads",
        "LAW 5",
        "state/leader.py",
        "term = %s AND expires_at > clock_timestamp() FOR SHARE",
        "term = %s FOR SHARE",
        (f"{_REGISTERS}::test_a_lease_that_ran_out_leads_nobody",),
    ),
    Mutant(
        "a silent node's pods are shown as last seen",
        "LAW 6",
        f"{_SQL}/0001_people.sql",
        "        WHEN silent.is AND seen.state <> 'absent' THEN 'unknown'\n",
        "",
        (f"{_ADMIN}::test_a_silent_node_makes_its_pods_unknown",),
    ),
    Mutant(
        "a tombstone can be taken back",
        "LAW 9",
        f"{_SQL}/0001_rules.sql",
        "    IF before = 'deleted' AND wanted <> 'deleted' THEN",
        "    IF false THEN",
        (f"{_RULES}::test_the_trigger_knows_the_table_of_transitions",),
    ),
    Mutant(
        "a pod's row can be deleted",
        "LAW 9",
        f"{_SQL}/0001_rules.sql",
        "CREATE TRIGGER pod_stays BEFORE DELETE OR TRUNCATE ON pod",
        "CREATE TRIGGER pod_stays BEFORE TRUNCATE ON pod",
        (f"{_RULES}::test_nothing_is_removed_but_by_a_tombstone",),
    ),
    Mutant(
        "one bad row hides all pods",
        "LAW 12",
        "state/pods.py",
        "    except ValueError:\n        return None\n",
        "    except KeyError:\n        return None\n",
        (f"{_PODS}::test_a_failure_that_cannot_be_read_hides_nothing",),
    ),
)
