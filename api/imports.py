"""Importing files: a tar from the caller, through the gateway, to a node that makes an archive of it."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx
from starlette.requests import ClientDisconnect

from api import wire_archives
from api.deps import Deps
from api.downloads import CONNECT_TIMEOUT_S, KEY_HEADER, LOOK_EVERY_S
from api.import_watch import UNCHANGED, ImportWatch
from api.operation import Answer, Call
from api.problems import ProblemError
from state import chores, pods, streams
from state.model import ChoreState, What

# Once all has been sent: reading back and writing down.
FINISH_TIMEOUT_S = 600.0


async def import_files(call: Call[wire_archives.ImportQuery, None]) -> Answer:
    """The numbers of the archives that were made of what is sent."""
    deps = call.deps
    assert call.incoming is not None
    if deps.downloads.locked():
        raise ProblemError("too_many_waiting", "As many transfers as are allowed at a time are under way.")
    try:
        asked = await deps.run(
            streams.ask_import, deps.db, call.target_id, call.query.format, actor=call.actor
        )
    except pods.PodNotFound as error:
        raise ProblemError("pod_not_found", str(error)) from error
    async with deps.downloads:
        try:
            made = await _sent(call, asked)
        finally:
            reason = "whoever was sending has gone, or has sent it all"
            await asyncio.shield(
                deps.run(chores.cancel_chore, deps.db, asked.chore_id, actor=call.actor, reason=reason)
            )
    return Answer(made, 201)


async def _sent(call: Call[wire_archives.ImportQuery, None], asked: streams.Import) -> wire_archives.Imported:
    """What became of it; or that its node has gone, whatever is still under way to it."""
    watch = ImportWatch()
    sending = asyncio.create_task(_send(call, asked))
    try:
        while not sending.done():
            await asyncio.wait({sending}, timeout=LOOK_EVERY_S)
            chore = await call.deps.run(chores.get_chore, call.deps.db, asked.chore_id)
            watch.see(chore, time.monotonic())
        watch.has_begun = watch.has_begun or not sending.result()
        return await _outcome(call.deps, asked, sending.result(), watch)
    finally:
        sending.cancel()


async def _send(call: Call[wire_archives.ImportQuery, None], asked: streams.Import) -> str:
    """Pass the body on; why the gateway refused it, or nothing."""
    url = f"{call.deps.settings.gateway_url.rstrip('/')}/v1/streams/{asked.chore_id}"
    timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
            answer = await client.put(url, headers={KEY_HEADER: asked.key}, content=call.incoming)
    except ClientDisconnect:
        raise
    except httpx.HTTPError as error:
        return f"The gateway broke off: {error}."
    return f"The gateway answered {answer.status_code}: {answer.text[:300]}" if answer.is_error else ""


async def _outcome(
    deps: Deps, asked: streams.Import, refused: str, watch: ImportWatch
) -> wire_archives.Imported:
    """The node knows best what was wrong; only where it says nothing, the gateway's word counts."""
    ends_at = time.monotonic() + (LOOK_EVERY_S * 6 if refused else FINISH_TIMEOUT_S)
    while time.monotonic() < ends_at:
        chore = await deps.run(chores.get_chore, deps.db, asked.chore_id)
        if chore is not None and chore.state is ChoreState.DONE and chore.progress is not None:
            return _made(chore.progress)
        if chore is not None and chore.state is ChoreState.FAILED:
            raise ProblemError("import_failed", str((chore.error or {}).get("message", "The node failed.")))
        watch.see(chore, time.monotonic())
        await asyncio.sleep(LOOK_EVERY_S)
    if refused:
        raise ProblemError("import_cut", f"{refused} {UNCHANGED}")
    raise ProblemError("import_failed", "The node has not finished in time.")


def _made(kept: Mapping[str, Any]) -> wire_archives.Imported:
    """Of an image, the pod's archive is the one to go back to: the files of the same moment come too."""
    pod, workspace = kept.get("pod"), kept.get("workspace")
    if pod is None:
        return wire_archives.Imported(what=What.WORKSPACE, number=int(workspace or 0))
    return wire_archives.Imported(what=What.POD if workspace is None else What.BOTH, number=int(pod))
