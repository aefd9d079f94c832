"""The handlers about what happened, and why things are as they are."""

from api import views, wire
from api.operation import Answer, Call
from api.pods import read_pod
from state import alarms, events
from state.events import Event


async def list_events(call: Call[wire.EventsQuery, None]) -> Answer:
    """One page of the fleet's history."""
    query = call.query
    found = await call.deps.run(
        events.list_events,
        call.deps.db,
        user_id=query.user,
        node_id=query.node,
        after=query.after,
        limit=query.limit,
    )
    return Answer(_page(found, query.limit))


async def list_pod_events(call: Call[wire.PodEventsQuery, None]) -> Answer:
    """One page of a pod's history."""
    query = call.query
    await read_pod(call.deps, call.target_id)
    found = await call.deps.run(
        events.list_events, call.deps.db, pod_id=call.target_id, after=query.after, limit=query.limit
    )
    return Answer(_page(found, query.limit))


async def explain_pod(call: Call[wire.NoQuery, None]) -> Answer:
    """Why the pod is as it is, and what it waits for."""
    status = await read_pod(call.deps, call.target_id)
    newest = await call.deps.run(
        events.list_events, call.deps.db, pod_id=call.target_id, limit=wire.EVENTS_EXPLAINED, newest=True
    )
    raised = await call.deps.run(alarms.open_alarms, call.deps.db, pod_id=call.target_id)
    return Answer(views.explanation(status, newest, raised))


def _page(found: list[Event], limit: int) -> wire.EventList:
    following = found[-1].id if len(found) == limit else None
    return wire.EventList(events=[views.event(event) for event in found], next=following)
