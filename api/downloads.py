"""Downloading a pod's archives: the API asks for them, a node sends, and the bytes pass through."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx

from api import wire_archives
from api.deps import Deps
from api.operation import Call, Stream
from api.problems import ProblemError
from state import chores, pods, streams
from state.generations import ArchiveDamaged, ArchiveNotFound
from state.model import ChoreState, ExportForm

# How long a node may take to begin: it may be busy with other chores.
BEGIN_TIMEOUT_S = 120.0
LOOK_EVERY_S = 0.5
CONNECT_TIMEOUT_S = 5.0
KEY_HEADER = "X-Stream-Key"
MEDIA_TYPES = {
    ExportForm.TAR: "application/x-tar",
    ExportForm.ZIP: "application/zip",
    ExportForm.OCI: "application/x-tar",
}
_OVER = frozenset({ChoreState.FAILED, ChoreState.CANCELLED})


async def download_pod(call: Call[wire_archives.DownloadQuery, None]) -> Stream:
    """Its newest archives, or those of a number, as one stream; the pod may be archived or running."""
    asked, deps = call.query, call.deps
    if deps.downloads.locked():
        raise ProblemError("too_many_waiting", "As many downloads as are allowed at a time are under way.")
    export = await _ask(call)
    headers = {
        "Content-Disposition": f'attachment; filename="{_file_name(call.target_id, export, asked)}"',
        "Codepods-Archive-Number": str(export.number),
        "Codepods-Archived-At": export.committed_at.isoformat(),
    }
    held = AsyncExitStack()
    try:
        held.push_async_callback(_forget, deps, export, call.actor)
        await held.enter_async_context(deps.downloads)
        response = await _begun(deps, export, held)
    # A caller who hangs up cancels this, which is no `Exception`: place and sealed file are given back too.
    except BaseException:
        await held.aclose()
        raise
    return Stream(_passed_on(response, held), MEDIA_TYPES[asked.format], headers)


async def _ask(call: Call[wire_archives.DownloadQuery, None]) -> streams.Export:
    asked = call.query
    try:
        return await call.deps.run(
            streams.ask_export,
            call.deps.db,
            call.target_id,
            asked.what,
            asked.format,
            asked.at,
            actor=call.actor,
        )
    except pods.PodNotFound as error:
        raise ProblemError("pod_not_found", str(error)) from error
    except ArchiveNotFound as error:
        raise ProblemError("archive_not_found", str(error)) from error
    except ArchiveDamaged as error:
        raise ProblemError("archive_damaged", str(error)) from error


def _file_name(pod_id: str, export: streams.Export, asked: wire_archives.DownloadQuery) -> str:
    ending = {"oci": "oci.tar"}.get(asked.format, str(asked.format))
    return f"{pod_id}-{asked.what}-{export.number}.{ending}"


async def _begun(deps: Deps, export: streams.Export, held: AsyncExitStack) -> httpx.Response:
    """The gateway's answer, once a node has begun to send."""
    timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
    client = await held.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=timeout))
    url = f"{deps.settings.gateway_url.rstrip('/')}/v1/streams/{export.chore_id}"
    request = client.build_request("GET", url, headers={KEY_HEADER: export.key})
    waiting = asyncio.create_task(client.send(request, stream=True))
    try:
        response = await _with_an_eye_on_the_chore(deps, export, waiting)
    finally:
        waiting.cancel()
    held.push_async_callback(response.aclose)
    if response.is_error:
        text = (await response.aread()).decode("utf-8", "replace")[:300]
        raise ProblemError("download_failed", f"The gateway answered {response.status_code}: {text}")
    return response


async def _with_an_eye_on_the_chore(
    deps: Deps, export: streams.Export, waiting: "asyncio.Task[httpx.Response]"
) -> httpx.Response:
    ends_at = time.monotonic() + BEGIN_TIMEOUT_S
    while True:
        done, _ = await asyncio.wait({waiting}, timeout=LOOK_EVERY_S)
        if done:
            try:
                return waiting.result()
            except httpx.HTTPError as error:
                raise ProblemError("download_failed", f"The gateway cannot be reached: {error}.") from error
        chore = await deps.run(chores.get_chore, deps.db, export.chore_id)
        if chore is None or chore.state in _OVER:
            told: dict[str, Any] = (chore.error if chore else None) or {}
            raise ProblemError("download_failed", str(told.get("message", "The node could not do it.")))
        if time.monotonic() > ends_at:
            detail = f"No node has begun to send within {BEGIN_TIMEOUT_S:g} s."
            raise ProblemError("download_not_begun", detail)


async def _passed_on(response: httpx.Response, held: AsyncExitStack) -> AsyncIterator[bytes]:
    """What is cut short raises, so that the caller's own answer is cut short as well."""
    async with held:
        async for chunk in response.aiter_raw():
            yield chunk


async def _forget(deps: Deps, export: streams.Export, actor: str) -> None:
    """Nobody reads it any more; done already is fine."""
    reason = "whoever was downloading has gone, or has it all"
    await asyncio.shield(deps.run(chores.cancel_chore, deps.db, export.chore_id, actor=actor, reason=reason))
