"""The handlers about pods: thin, between the wire and `state.pods`."""

from functools import partial
from typing import Any

from api import views, wire
from api.deps import Deps
from api.links import link_to
from api.operation import Answer, Call
from api.outlook import is_over
from api.problems import ProblemError
from state import pods
from state.model import Desired
from state.pods import PodStatus

Create = Call[wire.NoQuery, wire.CreatePod]


async def create_pod(call: Create) -> Answer:
    """Create the pod, or open the one that the user has under this name."""
    asked = call.body
    try:
        status, created = await call.deps.run(
            pods.create_or_open,
            call.deps.db,
            user_id=asked.user,
            name=asked.pod_name,
            image=asked.image,
            default_image=call.deps.settings.default_image,
            lab=asked.lab,
            resources=_limits(asked),
            desired=asked.desired,
            actor=call.actor,
            reason=None,
        )
    except pods.PodDiffers as error:
        raise ProblemError("pod_differs", str(error)) from error
    headers = {"Location": f"/api/v1/pods/{status.id}"}
    return Answer(views.pod(status), 201 if created else 200, headers)


async def list_pods(call: Call[wire.ListPodsQuery, None]) -> Answer:
    """One page of pods."""
    query = call.query
    found = await call.deps.run(
        pods.list_pods, call.deps.db, user_id=query.user, after=query.after, limit=query.limit
    )
    following = found[-1].id if len(found) == query.limit else None
    return Answer(wire.PodList(pods=[views.pod(status) for status in found], next=following))


async def get_pod(call: Call[wire.GetPodQuery, None]) -> Answer:
    """One pod, at once or when it is as waited for."""
    wanted = call.query.wait_for
    if wanted is None:
        return Answer(views.pod(await read_pod(call.deps, call.target_id)))
    return Answer(views.pod(await _pod_when(call.deps, call.target_id, wanted, call.query.timeout_s)))


async def set_desired_state(call: Call[wire.NoQuery, wire.SetDesiredState]) -> Answer:
    """Say what is wanted of the pod."""
    asked = call.body
    return Answer(views.pod(await _want(call, asked.state, asked.reason, asked.if_generation)))


async def delete_pod(call: Call[wire.NoQuery, None]) -> Answer:
    """Put up the tombstone: the pod and its archives are no longer wanted."""
    return Answer(views.pod(await _want(call, Desired.DELETED, None, None)))


async def open_pod(call: Call[wire.OpenPodQuery, None]) -> Answer:
    """Have the pod run, and give the link to it when it does."""
    status = await read_pod(call.deps, call.target_id)
    if status.desired is not Desired.RUNNING or status.failure is not None:
        status = await _want(call, Desired.RUNNING, "opened", None)
    if call.query.wait_s > 0:
        status = await _pod_when(call.deps, call.target_id, Desired.RUNNING, call.query.wait_s)
    link = await link_to(call.deps, status, reuse=call.query.reuse)
    return Answer(views.opened(status, link), 200 if link else 202, {"Cache-Control": "no-store"})


async def read_pod(deps: Deps, pod_id: str) -> PodStatus:
    """The pod. Raises `ProblemError` (`pod_not_found`)."""
    status = await deps.run(pods.get_pod, deps.db, pod_id)
    if status is None:
        raise ProblemError("pod_not_found", f"No pod has the id {pod_id[:100]}.")
    return status


async def _pod_when(deps: Deps, pod_id: str, wanted: Desired, timeout_s: float) -> PodStatus:
    """The pod when waiting for `wanted` is over, or the time is up."""
    read = partial(read_pod, deps, pod_id)
    return await deps.waiters.until(read, lambda status: is_over(views.pod(status), wanted), timeout_s)


async def _want(
    call: Call[Any, Any],
    desired: Desired,
    reason: str | None,
    if_generation: int | None,
) -> PodStatus:
    try:
        return await call.deps.run(
            pods.set_desired,
            call.deps.db,
            call.target_id,
            desired,
            actor=call.actor,
            reason=reason,
            if_generation=if_generation,
        )
    except pods.PodNotFound as error:
        raise ProblemError("pod_not_found", str(error)) from error
    except pods.PodDeleted as error:
        raise ProblemError("pod_deleted", str(error)) from error
    except pods.GenerationConflict as error:
        raise ProblemError("generation_conflict", str(error)) from error


def _limits(asked: wire.CreatePod) -> dict[str, int]:
    """The limits that were asked for; the others stay as they are."""
    limits = {"cpu_millis": asked.cpu_millis, "memory_mib": asked.memory_mib, "pids": asked.pids}
    return {name: value for name, value in limits.items() if value is not None}
