"""What the start page calls, for somebody whom nginx has admitted to the pod. Cheap: one or two reads."""

from typing import Any

from api import start_page, wire
from api.links import link_to
from api.operation import Answer, Call
from api.pods import read_pod
from api.problems import ProblemError
from api.wire_visit import Entered, EnterQuery, WakeQuery
from state import pods, queue
from state.model import Desired
from state.pods import PodStatus

WOKEN_BY_VISIT = "visited"
# nginx makes the pod's cookie of it and hides it: its template and gate.js name it, too.
_FOR_NGINX = "Codepods-Token"
_NOT_KEPT = {"Cache-Control": "no-store"}


async def show_visit(call: Call[wire.NoQuery, None]) -> Answer:
    """How the pod is getting on. Changes nothing, however often it is asked."""
    return await _shown(call, await read_pod(call.deps, call.target_id))


async def wake_pod(call: Call[WakeQuery, None]) -> Answer:
    """Have the pod run again: somebody is there and looks."""
    return await _shown(call, await _woken(call, again=call.query.again))


async def enter_pod(call: Call[EnterQuery, None]) -> Answer:
    """Have the pod run, and lead the browser into it under the session it has."""
    status = await _woken(call, again=False)
    link = await link_to(call.deps, status, visit=call.visit, to=call.query.to, reuse="any")
    if link is None:
        raise ProblemError("pod_not_running", f"It is {status.actual}.")
    # Beside the address that was asked: the browser stays at the shape of address that it came by.
    beside = f"../{link.to}"
    # Not in the address: browsers write down all those that they come by.
    headers = {**_NOT_KEPT, "Location": beside, _FOR_NGINX: link.token}
    return Answer(Entered(url=beside), 303, headers)


async def _woken(call: Call[EnterQuery, None] | Call[WakeQuery, None], *, again: bool) -> PodStatus:
    """The pod, wanted running if it was at rest. Saying so again changes nothing, unless `again` is meant."""
    status = await read_pod(call.deps, call.target_id)
    if not (start_page.is_asleep(status) or (again and status.failure is not None)):
        return status
    try:
        return await call.deps.run(
            pods.set_desired,
            call.deps.db,
            call.target_id,
            Desired.RUNNING,
            actor=call.actor,
            reason=WOKEN_BY_VISIT,
        )
    except pods.PodDeleted:
        return await read_pod(call.deps, call.target_id)


async def _shown(call: Call[Any, None], status: PodStatus) -> Answer:
    ahead = await call.deps.run(queue.ahead_of, call.deps.db, status.id, status.condition)
    return Answer(start_page.of(status, ahead), headers=_NOT_KEPT)
