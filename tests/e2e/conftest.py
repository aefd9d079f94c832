"""One installation with two nodes for the whole folder; each test uses users of its own."""

from collections.abc import Iterator

import pytest

from tests.support.local_installation import LocalInstallation, local_installation


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalInstallation]:
    """codepods as `make up NODES=2` starts it."""
    home = tmp_path_factory.mktemp("codepods") / "home"
    with local_installation(home, nodes=2) as running:
        yield running
