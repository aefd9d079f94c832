"""Pulls of images that do not come: bounded, given up when nobody wants them, and in nobody's way."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.errors import TakenBack
from state.wire import CreatePod, CreateWorkspace, PodSpec
from tests.support.docker_node import ONE, DockerNode
from tests.support.site import until
from tests.support.stalling_registry import StallingRegistry


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """With a user's workspace, and little patience with registries."""
    made = DockerNode(tmp_path, pull_silence_s_max=1.0, pull_timeout_s_max=60.0)
    made.done(CreateWorkspace())
    yield made
    made.clean_up()


def create(registry: StallingRegistry) -> CreatePod:
    """A pod of that image."""
    return CreatePod(spec=PodSpec(name="ide", image=registry.image))


def test_a_pull_on_which_nothing_comes_is_given_up_and_tried_again(
    node: DockerNode, registry: StallingRegistry
) -> None:
    """The error says whose fault it is and what to do; when the registry goes on, so does the next try."""
    failed = node.refused(create(registry), ONE)
    assert (failed.code, failed.permanent) == ("image_pull_timeout", False)
    assert "nothing came from its registry for 1 s" in failed.message
    registry.flowing.set()
    until(lambda: node.do(create(registry), ONE).outcome == "done")
    assert registry.asked >= 2


def test_a_pull_that_takes_too_long_in_all_is_given_up(tmp_path: Path, registry: StallingRegistry) -> None:
    """However little comes now and then."""
    node = DockerNode(tmp_path, pull_silence_s_max=30.0, pull_timeout_s_max=0.5)
    try:
        node.done(CreateWorkspace())
        failed = node.refused(create(registry), ONE)
        assert (failed.code, "within 0.5 s" in failed.message) == ("image_pull_timeout", True)
    finally:
        node.clean_up()


def test_a_pull_that_nobody_wants_any_more_ends_at_once(tmp_path: Path, registry: StallingRegistry) -> None:
    """Long before its bounds, which are minutes; how far it was had been told."""
    node = DockerNode(tmp_path)
    taken_back, told = threading.Event(), []

    def note(phase: str, done_bytes: int, total_bytes: int | None) -> None:
        told.append((phase, done_bytes, total_bytes))
        if done_bytes:
            taken_back.set()

    try:
        node.done(CreateWorkspace())
        with pytest.raises(TakenBack):
            node.executor.execute(node.action(create(registry), ONE), taken_back, note)
        phase, done_bytes, total_bytes = told[-1]
        assert phase == "pulling the image"
        assert total_bytes is not None
        assert 0 < done_bytes < total_bytes
    finally:
        node.clean_up()
