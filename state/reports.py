"""Taking in what a node says: its lease, its report, the results of its actions; one short transaction.

A heartbeat that says nothing new writes one row and rings no bell. Reports are numbered by (boot id,
sequence); one that is not newer than the last is dropped whole, so that a late one brings back no past.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from state import events, presence
from state.backoff import next_failure
from state.database import Connection, Database
from state.forgotten import go_above
from state.lease import Refusal, renew_lease, stamp
from state.model import Limits, Verb
from state.observed import Comparison, Exit, Known, Oddity, compare
from state.results import EXITED, Judge, apply_progress, apply_results, known_failure, open_actions
from state.rows import failure_to_json
from state.silence import wake_users_of
from state.wire import Report, StepDone, SyncRequest

_FACTS = """
    UPDATE node SET address = %(address)s, cpu_millis = %(cpu)s, memory_mib = %(memory)s, facts = %(facts)s
     WHERE id = %(node)s AND (address, cpu_millis, memory_mib, facts)
           IS DISTINCT FROM (%(address)s, %(cpu)s, %(memory)s, %(facts)s)
"""

_LAST_REPORT = """
    SELECT clock_timestamp() AS now, r.digest, coalesce(r.payload -> 'told', '[]') AS told
      FROM (SELECT 1) one LEFT JOIN report r ON r.node_id = %(node)s
"""
_KEEP_REPORT = """
    INSERT INTO report AS r (node_id, boot_id, sequence, received_at, digest, payload)
    VALUES (%(node)s, %(boot)s, %(sequence)s, now(), %(digest)s, %(payload)s)
        ON CONFLICT (node_id) DO UPDATE
       SET boot_id = excluded.boot_id, sequence = excluded.sequence, received_at = excluded.received_at,
           digest = excluded.digest, payload = excluded.payload
"""

# Workspaces, then pods, each in the order of their ids: the order in which every writer locks them.
_LOCK_WORKSPACES = "SELECT 1 FROM workspace WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE"
# What was there before counts as well, for it may have gone.
_WORKSPACES_HERE = """
    SELECT p.workspace_id FROM pod_observed o JOIN pod p ON p.id = o.pod_id
     WHERE o.node_id = %(node)s AND o.state <> 'absent'
     UNION
    SELECT workspace_id FROM workspace_observed WHERE node_id = %(node)s AND state <> 'absent'
"""
_WORKSPACES_OF_ACTIONS = """
    SELECT DISTINCT workspace_id FROM action
     WHERE node_id = %(node)s AND state = 'open' AND id::text = ANY(%(ids)s)
"""

_KNOWN_PODS = """
    SELECT p.id, p.workspace_id, p.desired_state, p.generation AS wanted_generation,
           p.image_id AS pinned_image_id, p.failure, pl.node_id AS live_node_id, pl.epoch AS live_epoch,
           o.node_id AS observed_node_id, o.epoch, o.generation, o.state, o.container_id, o.image_id,
           o.upstream, o.session_secret, o.fingerprint, o.started_at, o.exit_code, o.oom_killed,
           o.self_fence_s,
           clock_timestamp() - o.since AS state_for, a.id::text AS open_id, a.verb AS open_verb,
           EXISTS (SELECT 1 FROM action s WHERE s.target = p.id AND s.state = 'superseded'
                      AND s.verb = 'stop_pod' AND s.finished_at >= o.since) AS stop_taken_back
      FROM pod p
      LEFT JOIN placement pl ON pl.workspace_id = p.workspace_id AND pl.released_at IS NULL
      LEFT JOIN pod_observed o ON o.pod_id = p.id
      LEFT JOIN action a ON a.target = p.id AND a.state = 'open'
     WHERE p.id IN (SELECT unnest(%(ids)s::text[])
                     UNION SELECT pod_id FROM pod_observed WHERE node_id = %(node)s AND state <> 'absent')
     ORDER BY p.id FOR NO KEY UPDATE OF p
"""
_KNOWN_WORKSPACES = """
    SELECT w.id, pl.node_id AS live_node_id, pl.epoch AS live_epoch, o.node_id AS observed_node_id, o.epoch,
           o.state, o.volume, o.fingerprint, a.verb AS open_verb
      FROM workspace w
      LEFT JOIN placement pl ON pl.workspace_id = w.id AND pl.released_at IS NULL
      LEFT JOIN workspace_observed o ON o.workspace_id = w.id
      LEFT JOIN action a ON a.target = w.id AND a.state = 'open'
     WHERE w.id IN (SELECT unnest(%(ids)s::text[])
                     UNION SELECT workspace_id FROM workspace_observed
                            WHERE node_id = %(node)s AND state <> 'absent')
"""

_SAW_PODS = """
    INSERT INTO pod_observed AS o (pod_id, node_id, epoch, generation, state, container_id, image_id,
                                   upstream, session_secret, fingerprint, started_at, exit_code,
                                   oom_killed, self_fence_s, boot_id, sequence)
    SELECT pod_id, %(node)s, epoch, generation, state, container_id, image_id, upstream, session_secret,
           fingerprint, started_at, exit_code, oom_killed, self_fence_s, %(boot)s, %(sequence)s
      FROM jsonb_to_recordset(%(rows)s)
        AS t(pod_id text, epoch bigint, generation bigint, state text, container_id text, image_id text,
             upstream text, session_secret text, fingerprint text, started_at timestamptz, exit_code int,
             oom_killed boolean, self_fence_s integer)
     ORDER BY pod_id
        ON CONFLICT (pod_id) DO UPDATE
       SET node_id = excluded.node_id, epoch = excluded.epoch, generation = excluded.generation,
           state = excluded.state, container_id = excluded.container_id, image_id = excluded.image_id,
           upstream = excluded.upstream, session_secret = excluded.session_secret,
           fingerprint = excluded.fingerprint, started_at = excluded.started_at,
           exit_code = excluded.exit_code, oom_killed = excluded.oom_killed,
             self_fence_s = excluded.self_fence_s, boot_id = excluded.boot_id,
           sequence = excluded.sequence, reported_at = now(),
           since = CASE WHEN (o.state, o.node_id, o.epoch)
                           = (excluded.state, excluded.node_id, excluded.epoch)
                        THEN o.since ELSE clock_timestamp() END
"""
_SAW_WORKSPACES = """
    INSERT INTO workspace_observed AS o (workspace_id, node_id, epoch, state, volume, fingerprint, boot_id,
                                         sequence)
    SELECT workspace_id, %(node)s, epoch, state, volume, fingerprint, %(boot)s, %(sequence)s
      FROM jsonb_to_recordset(%(rows)s)
        AS t(workspace_id text, epoch bigint, state text, volume text, fingerprint text)
     ORDER BY workspace_id
        ON CONFLICT (workspace_id) DO UPDATE
       SET node_id = excluded.node_id, epoch = excluded.epoch, state = excluded.state,
           volume = excluded.volume, fingerprint = excluded.fingerprint, boot_id = excluded.boot_id,
           sequence = excluded.sequence, reported_at = now(),
           since = CASE WHEN (o.state, o.node_id, o.epoch)
                           = (excluded.state, excluded.node_id, excluded.epoch)
                        THEN o.since ELSE clock_timestamp() END
"""
_PODS_ABSENT = """
    UPDATE pod_observed SET state = 'absent', container_id = NULL, upstream = NULL, session_secret = NULL,
           fingerprint = NULL, started_at = NULL, exit_code = NULL, oom_killed = false,
           self_fence_s = NULL, boot_id = %(boot)s,
           sequence = %(sequence)s, since = clock_timestamp(), reported_at = now()
     WHERE pod_id = ANY(%(ids)s)
"""
_WORKSPACES_ABSENT = """
    UPDATE workspace_observed SET state = 'absent', volume = NULL, fingerprint = NULL, boot_id = %(boot)s,
           sequence = %(sequence)s, since = clock_timestamp(), reported_at = now()
     WHERE workspace_id = ANY(%(ids)s)
"""
_PIN = """
    UPDATE pod p SET image_id = t.image_id FROM jsonb_to_recordset(%(rows)s) AS t(id text, image_id text)
     WHERE p.id = t.id AND p.image_id IS NULL
"""
_SET_FAILURE = "UPDATE pod SET failure = %(failure)s WHERE id = %(id)s"
_WAKE_PODS = "UPDATE pod SET next_check_at = clock_timestamp() WHERE id = ANY(%(ids)s)"
_WAKE_WORKSPACES = "UPDATE workspace SET next_check_at = clock_timestamp() WHERE id = ANY(%(ids)s)"


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a request. One that is refused changes nothing, and gets no actions either."""

    accepted: tuple[str, ...] = ()
    changed: bool = False
    refusal: Refusal | None = None

    @property
    def current(self) -> bool:
        """Whether it was believed."""
        return self.refusal is None


class UnusableReport(Exception):
    """What a node says cannot be so: a state that nodes do not report, a character that no name has."""


def ingest(db: Database, request: SyncRequest, *, limits: Limits, jitter: Callable[[], float]) -> Ingested:
    """Write down what a node (already authenticated) says; `jitter` gives numbers in [0, 1) for back-offs.

    Raises `UnusableReport` when the database refuses what is said: the same report would be refused again.
    Results are taken only together with a report, which the node makes after the steps they are of: so no
    step is planned again for want of its effect being seen (LAW 11). Not accepted ones are sent again.
    """
    try:
        with db.transaction() as conn:
            return _ingest(conn, request, limits, jitter)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise UnusableReport(str(error).strip().splitlines()[0]) from error


def _ingest(conn: Connection, request: SyncRequest, limits: Limits, jitter: Callable[[], float]) -> Ingested:
    lease = renew_lease(conn, request, limits.node_silent_after)
    if isinstance(lease, Refusal):
        return Ingested(refusal=lease)
    _keep_facts(conn, request)
    _note_engine(conn, request, lease["engine_error_before"])
    apply_progress(conn, request.node_id, request.progress)
    if request.report is None:
        return Ingested()
    changed = _take_in(conn, request, request.report, limits, jitter)
    if request.presence is not None:
        presence.take_in(conn, request.node_id, request.presence)
    if changed:
        conn.execute("NOTIFY codepods_observed")
    accepted = tuple(result.action_id for result in request.results)
    return Ingested(accepted=accepted, changed=changed)


def _note_engine(conn: Connection, request: SyncRequest, error_before: str | None) -> None:
    """When the engine stops or begins to answer, all who are placed there have to be looked at."""
    if (request.engine_error is None) == (error_before is None):
        return
    names = ("engine answers", "engine away")
    away = request.engine_error is not None
    events.append(
        conn,
        actor=f"node:{request.node_id}",
        kind="node",
        node_id=request.node_id,
        from_value=names[not away],
        to_value=names[away],
        reason=request.engine_error,
    )
    wake_users_of(conn, [request.node_id])
    conn.execute("NOTIFY codepods_observed")


def _keep_facts(conn: Connection, request: SyncRequest) -> None:
    facts = request.facts
    arguments = {
        "node": request.node_id,
        "address": facts.address,
        "cpu": facts.cpu_millis,
        "memory": facts.memory_mib,
        "facts": Jsonb(facts.model_dump(mode="json")),
    }
    conn.execute(_FACTS, arguments)


def _take_in(
    conn: Connection, request: SyncRequest, report: Report, limits: Limits, jitter: Callable[[], float]
) -> bool:
    last = conn.execute(_LAST_REPORT, {"node": request.node_id}).fetchone()
    assert last is not None
    digest = hashlib.sha256(report.model_dump_json().encode()).hexdigest()
    same = last["digest"] == digest
    if same and not request.results:
        return False
    judge = Judge(now=last["now"], limits=limits, jitter=jitter)
    action_ids = [result.action_id for result in request.results]
    _lock(conn, request.node_id, action_ids, None if same else report)
    if not same:
        go_above(conn, request.node_id, report)
    known = None if same else _known(conn, request, report, limits)
    actions = open_actions(conn, request.node_id, action_ids)
    answered = apply_results(conn, request.results, actions, judge)
    if known is not None:
        comparison = compare(known, report)
        _write(conn, request, comparison)
        _fail_exited(conn, known, comparison.exits, judge)
        told = _tell(conn, request.node_id, comparison, last["told"])
        _keep_report(conn, request, report, digest, told)
    return answered > 0 or known is not None


def _lock(conn: Connection, node_id: str, action_ids: Sequence[str], report: Report | None) -> None:
    arguments = {"node": node_id, "ids": list(action_ids)}
    touched = {row["workspace_id"] for row in conn.execute(_WORKSPACES_OF_ACTIONS, arguments)}
    if report is not None:
        touched |= {row["workspace_id"] for row in conn.execute(_WORKSPACES_HERE, arguments)}
        touched |= {line.workspace_id for line in report.pods}
        touched |= {line.workspace_id for line in report.workspaces}
    conn.execute(_LOCK_WORKSPACES, {"ids": sorted(touched)})


def _known(conn: Connection, request: SyncRequest, report: Report, limits: Limits) -> Known:
    node = request.node_id
    pods = conn.execute(_KNOWN_PODS, {"node": node, "ids": [line.pod_id for line in report.pods]})
    by_id = {row["id"]: row for row in pods}
    volumes = [line.workspace_id for line in report.workspaces]
    workspaces = conn.execute(_KNOWN_WORKSPACES, {"node": node, "ids": volumes})
    return Known(
        node_id=node,
        pods=by_id,
        workspaces={row["id"]: row for row in workspaces},
        closed=frozenset(line.action_id for line in request.results if isinstance(line, StepDone)),
        healthy_after=limits.healthy_after,
    )


def _write(conn: Connection, request: SyncRequest, comparison: Comparison) -> None:
    numbered = stamp(request)
    if comparison.pods:
        conn.execute(
            _SAW_PODS, {**numbered, "rows": _json(line.model_dump(mode="json") for line in comparison.pods)}
        )
    if comparison.workspaces:
        rows = _json(line.model_dump(mode="json") for line in comparison.workspaces)
        conn.execute(_SAW_WORKSPACES, {**numbered, "rows": rows})
    conn.execute(_PODS_ABSENT, {**numbered, "ids": comparison.absent_pods})
    conn.execute(_WORKSPACES_ABSENT, {**numbered, "ids": comparison.absent_workspaces})
    if comparison.pins:
        rows = _json({"id": pod_id, "image_id": image_id} for pod_id, image_id in comparison.pins.items())
        conn.execute(_PIN, {"rows": rows})
    pods = [*comparison.absent_pods, *(line.pod_id for line in comparison.pods)]
    volumes = [*comparison.absent_workspaces, *(line.workspace_id for line in comparison.workspaces)]
    conn.execute(_WAKE_WORKSPACES, {"ids": sorted(volumes)})
    conn.execute(_WAKE_PODS, {"ids": sorted(pods)})


def _fail_exited(conn: Connection, known: Known, exits: Iterable[Exit], judge: Judge) -> None:
    """Bound crash loops: a pod that exits soon after its start waits longer each time."""
    for line in exits:
        row = known.pods[line.pod.pod_id]
        message = exit_message(line)
        failure = None
        if not line.healthy:
            failure = next_failure(
                known_failure(row["failure"]),
                verb=Verb.START_POD,
                code=EXITED,
                message=message,
                permanent=False,
                generation=row["wanted_generation"],
                now=judge.now,
                limits=judge.limits,
                jitter=judge.jitter(),
            )
        column = Jsonb(failure_to_json(failure)) if failure else None
        conn.execute(_SET_FAILURE, {"id": line.pod.pod_id, "failure": column})
        events.append(
            conn,
            actor=f"node:{known.node_id}",
            kind="exited",
            pod_id=line.pod.pod_id,
            workspace_id=line.pod.workspace_id,
            node_id=known.node_id,
            from_value="running",
            to_value=line.pod.state,
            reason=message,
            detail={"exit_code": line.pod.exit_code, "oom_killed": line.pod.oom_killed},
        )


def exit_message(line: Exit) -> str:
    """For the user: why the pod does not run any more."""
    code = "an unknown code" if line.pod.exit_code is None else f"code {line.pod.exit_code}"
    if line.pod.oom_killed:
        return f"The container ran out of memory and exited with {code}. Give the pod more memory_mib."
    return f"The container exited by itself with {code}. Its log on the node says more."


def _tell(conn: Connection, node_id: str, comparison: Comparison, told_before: Iterable[str]) -> list[str]:
    """An event for each oddity that is new; the keys of those that last, to be remembered."""
    before = set(told_before)
    new = {oddity.key: oddity for oddity in comparison.present if oddity.key not in before}
    for oddity in (*comparison.vanished, *new.values()):
        _oddity_event(conn, node_id, oddity)
    return sorted({oddity.key for oddity in comparison.present})


def _oddity_event(conn: Connection, node_id: str, oddity: Oddity) -> None:
    events.append(
        conn,
        actor=f"node:{node_id}",
        kind=oddity.kind,
        pod_id=oddity.pod_id,
        workspace_id=oddity.workspace_id,
        node_id=node_id,
        reason=oddity.reason,
        detail={"subject": oddity.subject},
    )


def _keep_report(
    conn: Connection, request: SyncRequest, report: Report, digest: str, told: Sequence[str]
) -> None:
    """Keep the report for people and for the next comparison; without the secrets that open IDEs."""
    payload: dict[str, Any] = report.model_dump(
        mode="json", exclude={"pods": {"__all__": {"session_secret"}}}
    )
    arguments = {**stamp(request), "digest": digest, "payload": Jsonb({**payload, "told": list(told)})}
    conn.execute(_KEEP_REPORT, arguments)


def _json(rows: Iterable[dict[str, Any]]) -> Jsonb:
    return Jsonb(list(rows))
