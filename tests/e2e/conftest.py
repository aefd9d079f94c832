"""One installation with two nodes for the whole folder; each test uses users of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_installation import LocalInstallation, local_installation


@pytest.fixture(scope="session")
def installation() -> Iterator[LocalInstallation]:
    """codepods as `make up NODES=2` starts it, outside pytest's directories, which later runs sweep."""
    with (
        tempfile.TemporaryDirectory(prefix="codepods-e2e-") as directory,
        local_installation(Path(directory) / "home", nodes=2) as running,
    ):
        yield running
