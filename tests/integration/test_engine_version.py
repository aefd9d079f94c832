"""The API version is negotiated with each engine; one that is too old is refused with what to do."""

from pathlib import Path

import pytest

from node_agent.docker_runtime import DockerRuntime
from node_agent.errors import EngineTooOld
from tests.support.engine_gate import EngineOfVersion


def test_an_engine_that_is_too_old_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Nothing is asked of it, and nothing concluded: it is as if it did not answer."""
    gate = EngineOfVersion(tmp_path / "docker.sock", "1.39")
    runtime = DockerRuntime("test-old", gate.url)
    with pytest.raises(EngineTooOld, match=r"1\.39.*at least 1\.41.*Upgrade"):
        runtime.look()
    runtime.close()
    gate.shut()


def test_the_version_is_the_engines_own() -> None:
    """As `docker version` says it, not one that we were built with."""
    runtime = DockerRuntime("test-version")
    facts = runtime.facts()
    assert facts.api_version.startswith("1.")
    assert facts.engine_version
    runtime.close()
