"""From what `state` read to what the API shows. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from api import wire, wire_tokens
from api.links import Link
from state.alarms import Alarm
from state.events import Event
from state.model import Failure
from state.nodes import NodeStatus
from state.outlook import Outlook
from state.plan import Condition
from state.pods import PodStatus
from state.tokens import TokenStatus

# What holds up everything on a node, whatever else is said of the pod.
_NODE_TROUBLE = (Condition.NODE_SILENT, Condition.ENGINE_AWAY)


def pod(status: PodStatus) -> wire.Pod:
    """A pod as the API shows it."""
    return wire.Pod(
        pod_id=status.id,
        user=status.user_id,
        name=status.name,
        image=status.image,
        lab=status.lab,
        cpu_millis=status.resources.cpu_millis,
        memory_mib=status.resources.memory_mib,
        pids=status.resources.pids,
        desired=status.desired,
        state=status.actual,
        generation=status.generation,
        settled=status.satisfied_generation == status.generation,
        node=status.node_id,
        since=status.since,
        condition=status.condition,
        reason=status.reason,
        failure=_failure(status.failure),
        archive=_archive(status),
        progress=_progress(status.progress),
        created_at=status.created_at,
        stops=_stops(status.outlook),
    )


def _stops(coming: Outlook | None) -> wire.Stops | None:
    if coming is None:
        return None
    return wire.Stops(
        at=coming.stops_at, reason=coming.reason, warned=coming.warned, can_extend=coming.can_extend
    )


def _failure(failed: Failure | None) -> wire.Failure | None:
    if failed is None:
        return None
    return wire.Failure(
        verb=failed.verb,
        code=failed.code,
        message=failed.message,
        count=failed.count,
        permanent=failed.permanent,
        retry_at=failed.retry_at,
    )


def _archive(status: PodStatus) -> wire.Archive | None:
    made = status.archive
    if made is None:
        return None
    return wire.Archive(
        archive_id=made.id, number=made.number, size_bytes=made.size_bytes, committed_at=made.committed_at
    )


def _progress(told: Mapping[str, Any] | None) -> wire.Progress | None:
    return None if told is None else wire.Progress.model_validate(told)


def opened(status: PodStatus, link: Link | None) -> wire.OpenedPod:
    """A pod on its way to a browser."""
    return wire.OpenedPod(
        pod_id=status.id,
        state=status.actual,
        url=link and link.url,
        post=link and wire.Post(action=link.action, fields={"tkn": link.token}),
        expires_at=link and link.expires_at,
        pod=pod(status),
    )


def event(happened: Event) -> wire.Event:
    """An event as the API shows it."""
    return wire.Event(
        event_id=happened.id,
        at=happened.at,
        actor=happened.actor,
        kind=happened.kind,
        pod_id=happened.pod_id,
        workspace_id=happened.workspace_id,
        node_id=happened.node_id,
        from_value=happened.from_value,
        to_value=happened.to_value,
        reason=happened.reason,
        detail=happened.detail,
    )


def node(status: NodeStatus) -> wire.Node:
    """A node as the API shows it."""
    return wire.Node(
        node_id=status.id,
        address=status.address,
        alive=not status.silent,
        lost=status.lost,
        last_seen_at=status.last_seen_at,
        cordoned=status.cordoned,
        cpu_millis=status.capacity.cpu_millis,
        memory_mib=status.capacity.memory_mib,
        pods=status.pods,
        engine_error=status.engine_error,
    )


def token(status: TokenStatus) -> wire_tokens.Token:
    """A token as the API shows it."""
    return wire_tokens.Token(
        token_id=status.id,
        name=status.name,
        scope=wire.Scope(status.scope),
        created_at=status.created_at,
        revoked_at=status.revoked_at,
    )


def created_token(status: TokenStatus, plaintext: str) -> wire_tokens.CreatedToken:
    """A new token, with the token itself."""
    return wire_tokens.CreatedToken(**dict(token(status)), token=plaintext)


def explanation(status: PodStatus, newest: Sequence[Event], raised: Sequence[Alarm] = ()) -> wire.Explanation:
    """Why a pod is as it is."""
    shown = pod(status)
    return wire.Explanation(
        pod=shown,
        waiting_for=waiting_for(shown),
        step=_step(status),
        alarms=[alarm(one) for one in raised],
        events=[event(one) for one in newest],
    )


def alarm(raised: Alarm) -> wire.Alarm:
    """An alarm as the API shows it."""
    return wire.Alarm(
        kind=raised.kind,
        subject=raised.subject,
        pod_id=raised.pod_id,
        workspace_id=raised.workspace_id,
        message=raised.message,
        raised_at=raised.raised_at,
    )


def waiting_for(shown: wire.Pod) -> str:
    """What the pod waits for, in a sentence."""
    if shown.condition in _NODE_TROUBLE and shown.reason:
        return _sentence(shown.reason)
    if shown.settled:
        return f"Nothing: {shown.reason or 'it is as wanted'}."
    if shown.failure is not None:
        who = "Somebody to put it right and to ask again" if shown.failure.permanent else "Another try"
        return f"{who}: {shown.failure.message}"
    if shown.reason is None or shown.condition == "settled":
        return "The reconciler to look at what is wanted now."
    return _sentence(shown.reason)


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:]}" + ("" if reason.endswith(".") else ".")


def _step(status: PodStatus) -> wire.OpenStep | None:
    action = status.open_action
    if action is None:
        return None
    return wire.OpenStep(
        verb=action.verb, node=action.node_id, since=action.created_at, progress=_progress(status.progress)
    )
