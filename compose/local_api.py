"""The few calls that `up` and `status` make to the API of their own installation."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from compose.layout import Layout, write_private
from compose.problems import ProblemError

Json = dict[str, Any]
CALL_TIMEOUT_S = 10.0
# How long one call for a link waits at the API, which bounds it to 25.
OPEN_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Client:
    """How the installation is reached: `client.json`, which `podctl` reads too."""

    url: str
    ca: str
    token: str

    def save(self, layout: Layout) -> None:
        """Replace the file in one step, 0600."""
        text = json.dumps({"url": self.url, "ca": self.ca, "token": self.token}, indent=2)
        write_private(layout.client, text + "\n")

    @classmethod
    def load(cls, layout: Layout) -> "Client | None":
        """What the file says, or None where it says nothing of use."""
        try:
            raw = json.loads(layout.client.read_text())
            return cls(str(raw["url"]), str(raw["ca"]), str(raw["token"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def call(self, method: str, path: str, body: Json | None = None, **query: Any) -> Json:
        """One call; its JSON. Raises `ProblemError` with what the API says, or that it does not answer."""
        try:
            reply = httpx.request(
                method,
                f"{self.url}/api/v1/{path}",
                json=body,
                params=query,
                headers={"Authorization": f"Bearer {self.token}"},
                timeout=CALL_TIMEOUT_S + OPEN_WAIT_S,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            raise ProblemError(f"The API at {self.url} does not answer: {error}") from error
        return _json_of(reply)


class ApiProblemError(ProblemError):
    """The API refused; `code` is its stable word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _json_of(reply: httpx.Response) -> Json:
    try:
        said = reply.json()
    except ValueError:
        said = {}
    if reply.is_success and isinstance(said, dict):
        return said
    said = said if isinstance(said, dict) else {}
    words = " ".join(str(said[key]) for key in ("detail", "hint") if said.get(key))
    raise ApiProblemError(str(said.get("code", "")), words or f"The API answered {reply.status_code}.")


def answers(url: str) -> bool:
    """Whether a GET of this address succeeds now."""
    try:
        return httpx.get(url, timeout=CALL_TIMEOUT_S, trust_env=False).is_success
    except (httpx.HTTPError, OSError):
        return False


def create_or_find_pod(client: Client, user: str, lab: str | None) -> str:
    """The id of the user's pod for this lab, made and wanted running. Raises `ProblemError`."""
    try:
        return str(client.call("POST", "pods", {"user": user, **({"lab": lab} if lab else {})})["pod_id"])
    except ApiProblemError as error:
        if error.code != "pod_differs":
            raise
    # It was made with another image or other limits, by somebody who meant it: it is opened as it is.
    pods = client.call("GET", "pods", user=user)["pods"]
    return next(str(pod["pod_id"]) for pod in pods if pod["lab"] == lab and pod["state"] != "deleted")


def opening(client: Client, pod_id: str) -> Iterator[Json]:
    """The answers to `:open` until there is a link, each a moment after the one before.

    Raises `ProblemError` when the pod cannot be opened until somebody puts something right.
    """
    while True:
        opened = client.call("POST", f"pods/{pod_id}:open", wait_s=OPEN_WAIT_S)
        yield opened
        if opened["url"]:
            return
        failure = opened["pod"]["failure"]
        if failure and failure["permanent"]:
            raise ProblemError(f"The first pod cannot be opened: {failure['message']}")
