"""The handlers about revocations: who is thrown out, within seconds."""

from dataclasses import asdict
from datetime import UTC, datetime

import structlog

from api import access_files, wire
from api.access_token import KeyringError
from api.operation import Answer, Call
from api.problems import ProblemError
from api.wire_revocations import Revocation, RevocationList, Revoke
from state import revocations

log = structlog.get_logger()


async def revoke(call: Call[wire.NoQuery, Revoke]) -> Answer:
    """End what was issued until now. Links made later open again: whoever gives them out decides that."""
    asked, deps = call.body, call.deps
    try:
        made = await deps.run(
            revocations.revoke,
            deps.db,
            asked.kind,
            asked.subject,
            now=datetime.now(UTC),
            actor=call.actor,
            reason=asked.reason,
        )
    except revocations.TooManyRevocations as error:
        raise ProblemError("too_many_revocations", str(error)) from error
    try:
        await deps.run(access_files.level, deps.db, deps.settings)
    except (OSError, KeyringError) as error:
        # The row is there: whoever keeps the files level comes to it again and again.
        log.error("revoked, and not yet told to nginx", error=str(error))
    return Answer(_shown(made), 201)


async def list_revocations(call: Call[wire.NoQuery, None]) -> Answer:
    """What is revoked now."""
    found = await call.deps.run(revocations.in_force, call.deps.db)
    return Answer(RevocationList(revocations=[_shown(one) for one in found]))


def _shown(one: revocations.Revocation) -> Revocation:
    return Revocation(**asdict(one))
