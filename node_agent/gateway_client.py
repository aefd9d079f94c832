"""The agent's side of the gateway: `POST /v1/sync`, and streams."""

import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

import httpx
from pydantic import ValidationError

from node_agent.settings import Settings
from state.chore_wire import ChoreHandle
from state.wire import BEGIN_ANEW, OTHER_MACHINE, Problem, SyncReply, SyncRequest

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0  # beyond the wait that was asked for
STREAM_TIMEOUT_S = 120.0  # for one chunk to go on: the gateway gives up on a reader before
REPLY_BYTES_MAX = 16 << 20
PROBLEM_BYTES_MAX = 1 << 16


class GatewayError(Exception):
    """A sync did not come to its end.

    `retry_soon`: waiting alone may help; else somebody must set it right. `overtaken`: another sync of this
    agent, begun later, was there first. `after`: it will be believed in a new run, later than this one.
    `other_machine`: another one is believed in its place.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_soon: bool,
        overtaken: bool = False,
        after: str = "",
        other_machine: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_soon = retry_soon
        self.overtaken = overtaken
        self.after = after
        self.other_machine = other_machine


class Gateway(Protocol):
    """Where reports go and actions come from."""

    def sync(self, request: SyncRequest) -> SyncReply:
        """One exchange. Raises GatewayError."""
        ...

    def send_stream(self, chore: ChoreHandle, chunks: Iterator[bytes]) -> None:
        """Send what a chore gives to whoever reads it. Raises GatewayError, and whatever `chunks` raises."""

    def read_stream(self, chore: ChoreHandle) -> AbstractContextManager[Iterator[bytes]]:
        """What somebody sends for a chore. Raises GatewayError, also when it breaks off."""
        ...


class GatewayClient:
    """Over HTTP, with the node's token. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._url = f"{settings.gateway_url.rstrip('/')}/v1/sync"
        self._streams_url = f"{settings.gateway_url.rstrip('/')}/v1/streams"
        self._node_id = settings.node_id
        ca_file = settings.gateway_ca_file
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {settings.node_token.get_secret_value()}"},
            verify=ssl.create_default_context(cafile=str(ca_file) if ca_file else None),
            trust_env=False,
        )

    def sync(self, request: SyncRequest) -> SyncReply:
        """One exchange; blocks for up to `request.wait_s` and a bit. Raises GatewayError."""
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S + request.wait_s, connect=CONNECT_TIMEOUT_S)
        try:
            answer = self._client.post(
                self._url,
                content=request.model_dump_json(),
                headers={"Content-Type": "application/json"},
                timeout=timeout,
            )
        except httpx.HTTPError as error:
            raise GatewayError(
                f"The gateway {self._url} did not answer ({type(error).__name__}: {error}). "
                "Pods keep running; it is tried again. Check CODEPODS_GATEWAY_URL if this lasts.",
                retry_soon=True,
            ) from error
        return self._read(answer)

    def send_stream(self, chore: ChoreHandle, chunks: Iterator[bytes]) -> None:
        """Returns when the reader has it all; waits for the reader as long as that takes it."""
        url = f"{self._streams_url}/{chore.id}"
        params = {"node": self._node_id, "attempt": str(chore.attempt)}
        timeout = httpx.Timeout(STREAM_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            answer = self._client.put(url, params=params, content=chunks, timeout=timeout)
        except httpx.HTTPError as error:
            raise GatewayError(
                f"The stream to {url} broke off ({type(error).__name__}: {error}).", retry_soon=False
            ) from error
        if answer.is_error:
            raise GatewayError(
                f"The gateway answered {answer.status_code}: {answer.text[:300]}", retry_soon=False
            )

    @contextmanager
    def read_stream(self, chore: ChoreHandle) -> Iterator[Iterator[bytes]]:
        """Begins when the sender does."""
        url = f"{self._streams_url}/{chore.id}"
        params = {"node": self._node_id, "attempt": str(chore.attempt)}
        timeout = httpx.Timeout(STREAM_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with self._client.stream("GET", url, params=params, timeout=timeout) as answer:
                if answer.is_error:
                    text = answer.read().decode("utf-8", "replace")[:300]
                    raise GatewayError(f"The gateway answered {answer.status_code}: {text}", retry_soon=False)
                yield answer.iter_raw()
        except httpx.HTTPError as error:
            raise GatewayError(
                f"The stream from {url} broke off ({type(error).__name__}: {error}).", retry_soon=False
            ) from error

    def _read(self, answer: httpx.Response) -> SyncReply:
        if answer.status_code in (401, 403):
            raise GatewayError(
                f"The gateway does not know this node ({answer.status_code}). "
                "Check CODEPODS_NODE_ID and CODEPODS_NODE_TOKEN, and that the node is registered.",
                retry_soon=False,
            )
        if answer.status_code == 409:
            raise _not_believed(answer)
        if answer.status_code != 200:
            raise GatewayError(
                f"The gateway answered {answer.status_code}: {answer.text[:300]}",
                retry_soon=answer.status_code >= 500 or answer.status_code == 429,
            )
        if len(answer.content) > REPLY_BYTES_MAX:
            raise GatewayError("The gateway's reply is too large to be read.", retry_soon=False)
        try:
            return SyncReply.model_validate_json(answer.content)
        except ValidationError as error:
            raise GatewayError(
                f"The gateway's reply cannot be read ({error.error_count()} fields). "
                "Check that CODEPODS_GATEWAY_URL is the gateway's, and that versions fit.",
                retry_soon=False,
            ) from error

    def close(self) -> None:
        """Drop connections; a waiting sync fails."""
        self._client.close()


def _not_believed(answer: httpx.Response) -> GatewayError:
    why = Problem()
    with suppress(ValidationError):
        why = Problem.model_validate_json(answer.content[:PROBLEM_BYTES_MAX])
    return GatewayError(
        f"The gateway has a newer report of this node already: {answer.text[:300]} "
        "If this lasts, a second agent runs under the same CODEPODS_NODE_ID: stop one.",
        retry_soon=True,
        overtaken=not why.code or why.code == "stale_report",
        after=why.after if why.code == BEGIN_ANEW else "",
        other_machine=why.code == OTHER_MACHINE,
    )
