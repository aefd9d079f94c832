"""Pulling an image so that it ends: when nobody wants it, when nothing comes, when it takes too long.

The docker SDK waits for a pull without a bound, and the engine for its registry as well. The engine gives up
a pull when the connection of the last who asked for it ends.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any

import docker
import docker.errors
import requests
import urllib3.exceptions

from node_agent.docker_errors import image_error, translated
from node_agent.errors import PullTimeout

CONNECT_TIMEOUT_S = 60.0
ATTEND_EVERY_S = 0.2
_SILENCE = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError)

Line = dict[str, Any]
# Called at least every `ATTEND_EVERY_S`, with the bytes that came and, once it is known, of how many; what it
# raises ends the pull.
Attend = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class PullBounds:
    """How long nothing may come, and how long all of it may take, seconds."""

    silence_s_max: float
    total_s_max: float


class PullClient(docker.APIClient):
    """A connection for one pull, which ends when nothing has come on it for so long."""

    silence_s_max: float = CONNECT_TIMEOUT_S

    def send(self, request: requests.PreparedRequest, **named: Any) -> requests.Response:
        """As every request of the SDK goes out."""
        return super().send(request, **(named | {"timeout": (CONNECT_TIMEOUT_S, self.silence_s_max)}))


@dataclass
class Tally:
    """Bytes of all layers so far, from what the engine says of each of them."""

    done: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)

    def take(self, line: Line) -> None:
        """What is told while a layer is unpacked is not counted: those bytes have come already."""
        detail, layer = line.get("progressDetail") or {}, str(line.get("id"))
        if line.get("status") == "Downloading" and "current" in detail:
            self.done[layer] = int(detail["current"])
            self.total[layer] = max(int(detail.get("total") or 0), self.done[layer])
        elif line.get("status") == "Download complete" and layer in self.total:
            self.done[layer] = self.total[layer]

    def attend(self, attend: Attend) -> None:
        """Tell it."""
        attend(sum(self.done.values()), sum(self.total.values()) or None)


def pull(client: PullClient, reference: str, bounds: PullBounds, attend: Attend) -> None:
    """Fetch an image from its registry; a reference without a tag means `latest`, never all tags.

    Returns or raises soon after a bound, or `attend`, says so; a thread may then wait for the engine until
    the silence is over. Raises ImageNotFound, PullTimeout, other StepError, and whatever `attend` raises.
    """
    client.silence_s_max = bounds.silence_s_max
    said: Queue[Line | Exception | None] = Queue()
    over = threading.Event()
    argv = (client, reference, said, over)
    threading.Thread(target=_read, args=argv, name="image-pull", daemon=True).start()
    try:
        with translated(f"pull the image {reference!r}"):
            _follow(said, reference, bounds, attend)
    finally:
        over.set()


def _follow(
    said: "Queue[Line | Exception | None]", reference: str, bounds: PullBounds, attend: Attend
) -> None:
    tally, ends_at = Tally(), time.monotonic() + bounds.total_s_max
    while (line := _next(said)) is not None:
        if isinstance(line, _SILENCE):
            raise _nothing_came(reference, bounds) from line
        if isinstance(line, docker.errors.APIError):
            raise image_error(reference, line.explanation or str(line)) from line
        if isinstance(line, Exception):
            raise line
        if "error" in line:
            raise image_error(reference, str(line["error"]))
        tally.take(line)
        tally.attend(attend)
        if time.monotonic() > ends_at:
            raise _too_long(reference, bounds)


def _next(said: "Queue[Line | Exception | None]") -> Line | Exception | None:
    try:
        return said.get(timeout=ATTEND_EVERY_S)
    except Empty:
        return {}


def _read(
    client: PullClient, reference: str, said: "Queue[Line | Exception | None]", over: threading.Event
) -> None:
    try:
        for line in _lines(client, reference):
            if over.is_set():
                return
            said.put(line)
        said.put(None)
    except Exception as error:  # noqa: BLE001 - told in the thread that waits for it
        said.put(error)
    finally:
        with suppress(Exception):
            client.close()


def _lines(client: PullClient, reference: str) -> Iterator[Line]:
    tag = None if "@" in reference else reference.rpartition(":")[2]
    has_tag = tag is not None and tag != reference and "/" not in tag
    name = reference.removesuffix(f":{tag}") if has_tag else reference
    wanted = tag if has_tag else None if tag is None else "latest"
    yield from client.pull(name, tag=wanted, stream=True, decode=True)


_WHAT_TO_DO = (
    "The pull was given up, and is tried again. Check the registry and the node's network, or load the image "
    "on the node (docker load)."
)


def _nothing_came(reference: str, bounds: PullBounds) -> PullTimeout:
    return PullTimeout(
        f"The image {reference!r} could not be pulled: nothing came from its registry for "
        f"{bounds.silence_s_max:g} s. {_WHAT_TO_DO}"
    )


def _too_long(reference: str, bounds: PullBounds) -> PullTimeout:
    return PullTimeout(
        f"The image {reference!r} could not be pulled within {bounds.total_s_max:g} s. {_WHAT_TO_DO}"
    )
