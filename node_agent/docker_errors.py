"""From the docker SDK's errors to ours: no `docker.errors` leaves the runtime."""

from collections.abc import Iterator
from contextlib import contextmanager

import docker.errors
import requests.exceptions
import urllib3.exceptions

from node_agent.errors import (
    Conflict,
    DiskFull,
    EngineRefused,
    EngineUnavailable,
    ImageNotFound,
    NotFound,
    StepError,
)

_START_ENGINE = "Check that the engine runs (docker info) and that the agent may use its socket."
_IMAGE_MISSING = (
    "manifest unknown",
    "not found",
    "pull access denied",
    "repository does not exist",
    "invalid reference format",
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Run engine calls; raise StepError only. `doing` begins the message: "start container x"."""
    try:
        yield
    except docker.errors.APIError as error:
        raise _from_api(doing, error) from error
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
    ) as error:
        raise EngineUnavailable(
            f"Could not {doing}: the container engine did not answer ({_brief(error)}). {_START_ENGINE}"
        ) from error


def _from_api(doing: str, error: docker.errors.APIError) -> StepError:
    said = _brief(error.explanation or error)
    if "no space left on device" in said.lower():
        return _disk_full(doing, said)
    status = error.status_code
    if status == 404:
        return NotFound(f"Could not {doing}: {said}.")
    if status == 409:
        return Conflict(f"Could not {doing}: {said}.")
    if status in (502, 503):
        return EngineUnavailable(f"Could not {doing}: {said}. {_START_ENGINE}")
    return EngineRefused(f"Could not {doing}: the engine said: {said}. See the engine's log on the node.")


def image_error(reference: str, said: str) -> StepError:
    """Why an image could not be pulled: gone for good, or only out of reach."""
    brief = _brief(said)
    if "no space left on device" in brief.lower():
        return _disk_full(f"pull the image {reference!r}", brief)
    if any(hint in brief.lower() for hint in _IMAGE_MISSING):
        return ImageNotFound(
            f"The image {reference!r} is not on the node, and could not be pulled ({brief}). "
            "Check its name and tag, or load it on the node with docker load or docker build."
        )
    return ImageNotFound(
        f"The image {reference!r} is not on the node, and its registry could not be asked ({brief}). "
        "Check its name and the node's network, or load the image on the node.",
        permanent=False,
    )


def _disk_full(doing: str, said: str) -> DiskFull:
    return DiskFull(
        f"Could not {doing}: the node's disk is full ({said}). Make room on the engine's data directory."
    )


def _brief(error: object) -> str:
    return " ".join(str(error).split())[:500].rstrip(".")
