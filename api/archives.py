"""The handlers about archives, going back to one, and alarms."""

from api import views, wire, wire_archives
from api.operation import Answer, Call
from api.pods import read_pod
from api.problems import ProblemError
from state import alarms, generations, pods, recovery


async def list_archives(call: Call[wire.NoQuery, None]) -> Answer:
    """What can be gone back to."""
    await read_pod(call.deps, call.target_id)
    found = await call.deps.run(generations.list_generations, call.deps.db, call.target_id)
    return Answer(wire_archives.GenerationList(archives=[_shown(one) for one in found]))


async def restore_pod_at(call: Call[wire.NoQuery, wire_archives.RestoreAt]) -> Answer:
    """Go back, after saving what is there."""
    asked = call.body
    try:
        await call.deps.run(
            generations.ask_restore,
            call.deps.db,
            call.target_id,
            asked.number,
            asked.what,
            actor=call.actor,
        )
    except pods.PodNotFound as error:
        raise ProblemError("pod_not_found", str(error)) from error
    except pods.PodDeleted as error:
        raise ProblemError("pod_deleted", str(error)) from error
    except generations.ArchiveNotFound as error:
        raise ProblemError("archive_not_found", str(error)) from error
    except generations.ArchiveDamaged as error:
        raise ProblemError("archive_damaged", str(error)) from error
    except generations.RestoreUnderWay as error:
        raise ProblemError("restore_under_way", str(error)) from error
    return Answer(views.pod(await read_pod(call.deps, call.target_id)), 202)


async def recover_pod(call: Call[wire.NoQuery, None]) -> Answer:
    """Say what is wrong, save what is there, start anew."""
    try:
        outcome = await call.deps.run(recovery.recover, call.deps.db, call.target_id, actor=call.actor)
    except pods.PodNotFound as error:
        raise ProblemError("pod_not_found", str(error)) from error
    except pods.PodDeleted as error:
        raise ProblemError("pod_deleted", str(error)) from error
    shown = views.pod(await read_pod(call.deps, call.target_id))
    found, done, advice = list(outcome.found), list(outcome.done), list(outcome.advice)
    return Answer(wire_archives.Recovery(pod=shown, found=found, done=done, advice=advice))


async def list_alarms(call: Call[wire.NoQuery, None]) -> Answer:
    """What somebody should look at."""
    found = await call.deps.run(alarms.open_alarms, call.deps.db)
    return Answer(wire_archives.AlarmList(alarms=[views.alarm(one) for one in found]))


def _shown(one: generations.Generation) -> wire_archives.Generation:
    return wire_archives.Generation(
        archive_id=one.id,
        what=one.target_kind,
        number=one.number,
        committed_at=one.committed_at,
        size_bytes=one.size_bytes,
        current=one.current,
        live=one.live,
        damaged=one.suspect_reason,
        whole_at=one.whole_at,
        notices=one.notices,
    )
