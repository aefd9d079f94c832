"""The handler that keeps a pod running."""

from datetime import UTC, datetime, timedelta

from api import views, wire
from api.operation import Answer, Call
from api.pods import read_pod
from api.problems import ProblemError
from state import pods, policies


async def extend_pod(call: Call[wire.NoQuery, wire.ExtendPod]) -> Answer:
    """Keep the pod running, whoever is or is not there."""
    now = datetime.now(UTC)
    until = _until(call.body, now, timedelta(seconds=call.deps.settings.extension_s_max))
    try:
        await call.deps.run(
            policies.extend,
            call.deps.db,
            call.target_id,
            until,
            actor=call.actor,
            reason=f"to be kept until {until:%Y-%m-%d %H:%M:%S} UTC",
        )
    except pods.PodNotFound as error:
        raise ProblemError("pod_not_found", str(error)) from error
    except policies.NotRunning as error:
        raise ProblemError("pod_put_away", str(error)) from error
    return Answer(views.pod(await read_pod(call.deps, call.target_id)))


def _until(asked: wire.ExtendPod, now: datetime, longest: timedelta) -> datetime:
    if (asked.seconds is None) == (asked.until is None):
        raise ProblemError("extension_refused", "Exactly one of `seconds` and `until` must be given.")
    until = asked.until if asked.until is not None else now + timedelta(seconds=asked.seconds or 0)
    if until.tzinfo is None:
        raise ProblemError("extension_refused", "`until` has no zone: end it with Z, or with an offset.")
    if not now < until <= now + longest:
        allowed = f"from now on, by at most {longest.total_seconds():g} s (CODEPODS_EXTENSION_S_MAX)"
        raise ProblemError("extension_refused", f"A pod can be kept {allowed}; that was {until.isoformat()}.")
    return until.astimezone(UTC)
