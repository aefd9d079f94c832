"""The link to a running pod: its shape, and the sealed token in it."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

import structlog

from api.access_token import AccessClaims, Keyring, KeyringError, Reuse, seal
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
    """A way into a pod, and until when it opens: a path and query below its address, and a token."""

    base: str
    to: str
    token: str
    expires_at: datetime

    @property
    def url(self) -> str:
        """What a browser may follow."""
        path, mark, query = self.to.partition("?")
        return f"{self.base}{path}?tkn={self.token}{'&' if mark else ''}{query}"

    @property
    def action(self) -> str:
        """Where a page may post the token instead; leads to the pod's first page, with the same query."""
        _, mark, query = self.to.partition("?")
        return f"{self.base}_start/open{mark}{query}"


async def link_to(
    deps: Deps,
    status: PodStatus,
    *,
    visit: AccessClaims | None = None,
    to: str | None = None,
    reuse: Reuse | None = None,
) -> Link | None:
    """A fresh link to the pod, or None while it does not run where it is placed.

    It begins a session of its own, or goes on with that of the visit. `to`: path and query in the pod.
    `reuse`: as the settings say, unless given.

    Raises `ProblemError` (`keyring_unavailable`, `pod_unreachable`).
    """
    access = await deps.run(pods.access_of, deps.db, status.id)
    if access is None:
        return None
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=deps.settings.link_lifetime_s)
    # As old as the session's first link: what was revoked then does not become young by a visit.
    session_id = visit.session_id if visit else secrets.token_urlsafe(SESSION_ID_BYTES)
    issued_at = visit.issued_at if visit else int(time.time())
    claims = partial(_claims, access, session_id, issued_at, reuse or deps.settings.link_reuse)
    token = await deps.run(_sealed, deps.settings, claims, expires_at)
    return Link(base_of(deps.settings, status.id), to or folder_of(status.lab), token, expires_at)


def base_of(settings: ApiSettings, pod_id: str) -> str:
    """Where the pod's pages begin: below a path, or at a host name of its own."""
    if settings.url_shape == "path":
        return f"{settings.base_url}/pods/{pod_id}/"
    scheme, _, host = settings.base_url.partition("://")
    return f"{scheme}://{pod_id}.{host}/"


def folder_of(lab: str | None) -> str:
    """What has the IDE open the lab's folder, or the user's files."""
    return "?" + urlencode({"folder": f"{WORKSPACES}/{lab}" if lab else WORKSPACES}, safe="/")


def load_keyring(settings: ApiSettings) -> Keyring:
    """The keys as they are now. Raises `ProblemError` (`keyring_unavailable`)."""
    try:
        return Keyring.load(settings.keyring)
    except KeyringError as error:
        log.error("keyring unavailable", error=str(error))
        raise ProblemError("keyring_unavailable", "The keys that seal links cannot be read.") from error


def _claims(
    access: PodAccess, session_id: str, issued_at: int, reuse: Reuse, expires_at: datetime
) -> AccessClaims:
    return AccessClaims(
        pod=access.pod_id,
        user=access.user_id,
        epoch=access.epoch,
        upstream=access.upstream,
        secret=access.session_secret,
        expires_at=int(expires_at.timestamp()),
        session_id=session_id,
        issued_at=issued_at,
        reuse=reuse,
    )


def _sealed(settings: ApiSettings, claims: Callable[[datetime], AccessClaims], expires_at: datetime) -> str:
    keyring = load_keyring(settings)
    try:
        return seal(claims(expires_at), keyring, "url")
    except ValueError as error:
        raise ProblemError("pod_unreachable", f"The link was not made: {error}.") from error
