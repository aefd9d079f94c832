"""The API as Python calls: the only module of podctl that speaks HTTP."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from api import wire, wire_archives, wire_ports, wire_tokens
from api.podctl.connection import Connection, find
from api.podctl.failing import Failed
from api.values import PAGE_SIZE_MAX
from api.wire_revocations import Revocation
from state.model import Desired
from state.revoked import Kind

TIMEOUT_S = 15.0
# Until the first bytes: a node has to have time for it.
DOWNLOAD_TIMEOUT_S = 150.0
IMPORT_TIMEOUT_S = 660.0
RETRYABLE = frozenset({"unreachable", "database_unavailable", "too_many_waiting"})

R = TypeVar("R", bound=wire.Reply)


class Client:
    """Calls of the API. Each raises `Failed`: refused by the API under its problem code, or `unreachable`."""

    def __init__(self, connection: Connection) -> None:
        self._url = connection.url
        self._http = httpx.Client(
            base_url=f"{connection.url}/api/v1/",
            headers={"Authorization": f"Bearer {connection.token}", "User-Agent": "podctl"},
            verify=connection.verify(),
            trust_env=not connection.is_local,
            timeout=TIMEOUT_S,
        )

    def create(self, asked: dict[str, Any]) -> wire.Pod:
        """Create or open a pod; the API judges the values."""
        return self._call(wire.Pod, "POST", "pods", json=asked)

    def revoke(self, kind: Kind, subject: str, reason: str | None) -> Revocation:
        """Throw out whoever this stands for."""
        asked = {"kind": kind, "subject": subject, **({"reason": reason} if reason else {})}
        return self._call(Revocation, "POST", "revocations", json=asked)

    def open(self, pod_id: str, wait_s: float = 0) -> wire.OpenedPod:
        """Have it run; the link when it does."""
        return self._call(
            wire.OpenedPod, "POST", f"{_pod(pod_id)}:open", params={"wait_s": wait_s}, more_s=wait_s
        )

    def get(self, pod_id: str) -> wire.Pod:
        """The pod now."""
        return self._call(wire.Pod, "GET", _pod(pod_id))

    def wait(self, pod_id: str, wanted: Desired, timeout_s: float) -> wire.Pod:
        """The pod when waiting for `wanted` is over, at the latest after `timeout_s`."""
        params = {"wait_for": wanted, "timeout_s": f"{timeout_s:.3f}"}
        return self._call(wire.Pod, "GET", _pod(pod_id), params=params, more_s=timeout_s)

    def pods(self, user: str | None, limit: int) -> list[wire.Pod]:
        """The first `limit` pods, of one user or of all."""
        found: list[wire.Pod] = []
        after: str | None = None
        while len(found) < limit:
            params = {"user": user, "after": after, "limit": min(limit - len(found), PAGE_SIZE_MAX)}
            page = self._call(wire.PodList, "GET", "pods", params=params)
            found += page.pods
            after = page.next
            if after is None:
                break
        return found

    def set_desired(self, pod_id: str, wanted: Desired, reason: str | None) -> wire.Pod:
        """Say what is wanted of the pod."""
        asked = {"state": wanted, **({"reason": reason} if reason else {})}
        return self._call(wire.Pod, "PUT", f"{_pod(pod_id)}/desired-state", json=asked)

    def extend(self, pod_id: str, seconds: int) -> wire.Pod:
        """Keep the pod running for so long from now."""
        return self._call(wire.Pod, "POST", f"{_pod(pod_id)}:extend", json={"seconds": seconds})

    def explain(self, pod_id: str) -> wire.Explanation:
        """Why the pod is as it is."""
        return self._call(wire.Explanation, "GET", f"{_pod(pod_id)}/explain")

    def events(self, pod_id: str | None, params: dict[str, Any]) -> list[wire.Event]:
        """One page of the history of a pod, or of all."""
        path = f"{_pod(pod_id)}/events" if pod_id else "events"
        return self._call(wire.EventList, "GET", path, params=params).events

    def archives(self, pod_id: str) -> list[wire_archives.Generation]:
        """What can be gone back to."""
        path = f"{_pod(pod_id)}/archives"
        return self._call(wire_archives.GenerationList, "GET", path).archives

    def restore(self, pod_id: str, number: int, what: str) -> wire.Pod:
        """Go back to an earlier archive."""
        asked = {"number": number, "what": what}
        return self._call(wire.Pod, "POST", f"{_pod(pod_id)}:restore", json=asked)

    def recover(self, pod_id: str) -> wire_archives.Recovery:
        """Say what is wrong, save what is there, start anew."""
        return self._call(wire_archives.Recovery, "POST", f"{_pod(pod_id)}:recover")

    @contextmanager
    def download(self, pod_id: str, params: dict[str, Any]) -> Iterator[httpx.Response]:
        """The answer, whose bytes are read within the block. Raises `Failed`, also when it is cut short."""
        given = {name: value for name, value in params.items() if value is not None}
        timeout = httpx.Timeout(TIMEOUT_S, read=DOWNLOAD_TIMEOUT_S)
        try:
            with self._http.stream(
                "GET", f"{_pod(pod_id)}/download", params=given, timeout=timeout
            ) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                yield answer
        except httpx.HTTPError as error:
            raise Failed(
                "download_cut", f"The download was cut: {error}.", "What has come is not all: ask again."
            ) from error

    def ports(self, pod_id: str) -> list[wire_ports.Port]:
        """The ports of a pod that are open to others."""
        return self._call(wire_ports.PortList, "GET", f"{_pod(pod_id)}/ports").ports

    def set_port(self, pod_id: str, port: int, visibility: str) -> wire_ports.Port:
        """Say who may see the application on a port."""
        path = f"{_pod(pod_id)}/ports/{port}"
        return self._call(wire_ports.Port, "PUT", path, json={"visibility": visibility})

    def import_files(self, pod_id: str, chunks: Iterable[bytes], form: str) -> wire_archives.Imported:
        """Send a tar or an image; which archive it became."""
        timeout = httpx.Timeout(TIMEOUT_S, read=IMPORT_TIMEOUT_S, write=DOWNLOAD_TIMEOUT_S)
        try:
            answer = self._http.post(
                f"{_pod(pod_id)}:import",
                content=chunks,
                params={"format": form},
                headers={"Content-Type": "application/x-tar"},
                timeout=timeout,
            )
        except httpx.HTTPError as error:
            raise Failed(
                "unreachable", f"The import was cut: {error}.", "Nothing was changed: try again."
            ) from error
        if answer.is_error:
            raise _refusal(answer)
        return wire_archives.Imported.model_validate_json(answer.content)

    def alarms(self) -> list[wire.Alarm]:
        """What somebody should look at."""
        return self._call(wire_archives.AlarmList, "GET", "alarms").alarms

    def nodes(self) -> list[wire.Node]:
        """All nodes."""
        return self._call(wire.NodeList, "GET", "nodes").nodes

    def cordon(self, node_id: str, cordoned: bool) -> wire.Node:
        """Keep new placements off a node, or let them come again."""
        path = f"nodes/{quote(node_id, safe='')}/cordoned"
        return self._call(wire.Node, "PUT", path, json={"cordoned": cordoned})

    def declare_lost(self, node_id: str, reason: str) -> wire.Node:
        """Sign that a silent node will not come back."""
        path = f"nodes/{quote(node_id, safe='')}:declare_lost"
        return self._call(wire.Node, "POST", path, json={"reason": reason})

    def create_token(self, name: str, scope: wire.Scope) -> wire_tokens.CreatedToken:
        """A new token, shown this once."""
        return self._call(wire_tokens.CreatedToken, "POST", "tokens", json={"name": name, "scope": scope})

    def tokens(self) -> list[wire_tokens.Token]:
        """All tokens."""
        found: list[wire_tokens.Token] = []
        after: str | None = None
        while True:
            params = {"after": after, "limit": PAGE_SIZE_MAX}
            page = self._call(wire_tokens.TokenList, "GET", "tokens", params=params)
            found += page.tokens
            after = page.next
            if after is None:
                return found

    def revoke_token(self, token_id: str) -> wire_tokens.Token:
        """End a token."""
        return self._call(wire_tokens.Token, "DELETE", f"tokens/{quote(token_id, safe='')}")

    def _call(
        self,
        reply: type[R],
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        json: dict[str, Any] | None = None,
        more_s: float = 0,
    ) -> R:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            response = self._http.request(method, path, params=given, json=json, timeout=TIMEOUT_S + more_s)
        except httpx.HTTPError as error:
            raise Failed(
                "unreachable",
                f"Nothing answers at {self._url}: {error}.",
                "If it is the local installation, start it with `make up`.",
            ) from error
        if response.is_error:
            raise _refusal(response)
        try:
            return reply.model_validate_json(response.content)
        except ValidationError as error:
            raise Failed(
                "not_the_api",
                f"What answers at {self._url} is not this version's codepods API.",
                "Check CODEPODS_URL.",
            ) from error


def connect() -> Client:
    """A client of the API that the environment names, or of the local installation. Raises `Failed`."""
    return Client(find())


def _pod(pod_id: str) -> str:
    return f"pods/{quote(pod_id, safe='')}"


def _refusal(response: httpx.Response) -> Failed:
    try:
        problem = wire.Problem.model_validate_json(response.content)
    except ValidationError:
        # nginx answers for an API that is down, and without a problem document.
        return Failed(
            "unreachable" if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else "not_the_api",
            f"{response.url.copy_with(query=None)} answered {response.status_code} {response.reason_phrase}.",
            "See whether everything is up with `podctl status`.",
        )
    return Failed(problem.code, f"{problem.title}: {problem.detail}", problem.hint)
