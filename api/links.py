"""The link to a running pod: its shape, and the sealed token in it."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import structlog

from api.access_token import AccessClaims, Keyring, KeyringError, seal
from api.deps import Deps
from api.problems import ProblemError
from api.settings import ApiSettings
from state import pods
from state.pods import PodAccess, PodStatus

SESSION_ID_BYTES = 16
WORKSPACES = "/workspaces"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Link:
    """A link and until when it opens."""

    url: str
    expires_at: datetime


async def link_to(deps: Deps, status: PodStatus) -> Link | None:
    """A fresh link to the pod, or None while it does not run where it is placed.

    Raises `ProblemError` (`keyring_unavailable`, `pod_unreachable`).
    """
    access = await deps.run(pods.access_of, deps.db, status.id)
    if access is None:
        return None
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=deps.settings.link_lifetime_s)
    token = await deps.run(_sealed, deps.settings, status.id, access, expires_at)
    return Link(url_of(deps.settings, status.id, status.lab, token), expires_at)


def url_of(settings: ApiSettings, pod_id: str, lab: str | None, token: str) -> str:
    """The link: by path, or by a host name of the pod's own. Opens the lab's folder, or the user's files."""
    folder = f"{WORKSPACES}/{lab}" if lab else WORKSPACES
    query = urlencode({"tkn": token, "folder": folder}, safe="/")
    if settings.url_shape == "path":
        return f"{settings.base_url}/pods/{pod_id}/?{query}"
    scheme, _, host = settings.base_url.partition("://")
    return f"{scheme}://{pod_id}.{host}/?{query}"


def _sealed(settings: ApiSettings, pod_id: str, access: PodAccess, expires_at: datetime) -> str:
    try:
        keyring = Keyring.load(settings.keyring)
    except KeyringError as error:
        log.error("keyring unavailable", error=str(error))
        raise ProblemError("keyring_unavailable", "The keys that seal links cannot be read.") from error
    try:
        claims = AccessClaims(
            pod=pod_id,
            user=access.user_id,
            epoch=access.epoch,
            upstream=access.upstream,
            secret=access.session_secret,
            expires_at=int(expires_at.timestamp()),
            session_id=secrets.token_urlsafe(SESSION_ID_BYTES),
        )
    except ValueError as error:
        raise ProblemError("pod_unreachable", f"The link was not made: {error}.") from error
    return seal(claims, keyring, "url")
