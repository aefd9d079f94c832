"""Removes what a test's node has on the machine's engine, whatever became of the test."""

import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import partial
from typing import Any

import docker

from node_agent import labels
from node_agent.docker_files import SCRATCH_LABEL

GONE_WITHIN_S = 60
# The engine goes on for a moment with what an agent that was killed had asked of it.
LOOKS = 2


def sweep(node_id: str, network: str) -> None:
    """Returns when containers, volumes, network and scratch images of the node are gone."""
    with closing(docker.from_env(timeout=GONE_WITHIN_S).api) as client:
        for _ in range(LOOKS):
            for found, remove in _kinds(client, node_id, network):
                _remove_all(found, remove)


def _kinds(
    client: docker.APIClient, node_id: str, network: str
) -> Iterable[tuple[Callable[[], list[str]], Callable[[str], object]]]:
    """What lists and what removes them, in the order in which they hang on each other."""
    mine = {"label": f"{labels.NODE}={node_id}"}
    scratch = {"label": f"{SCRATCH_LABEL}={node_id}"}
    remove_container = partial(client.remove_container, v=True, force=True)
    yield lambda: _names(client.containers(all=True, filters=mine)), remove_container
    yield lambda: _names(client.containers(all=True, filters=scratch)), remove_container
    yield lambda: _names(client.volumes(filters=mine)["Volumes"]), partial(client.remove_volume, force=True)
    yield lambda: _names(client.networks(filters={"name": f"^{network}$"})), client.remove_network
    yield lambda: _names(client.images(filters=scratch)), partial(client.remove_image, force=True)


def _names(found: Iterable[dict[str, Any]] | None) -> list[str]:
    # Volumes have names only.
    return [one.get("Id") or one["Name"] for one in found or ()]


def _remove_all(found: Callable[[], list[str]], remove: Callable[[str], object]) -> None:
    """Tried again: the engine refuses what it is removing already, or what still hangs on something."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while left := found():
        assert time.monotonic() < deadline, f"the engine still has {left}"
        for one in left:
            with suppress(docker.errors.APIError):
                remove(one)
        time.sleep(0.02)
