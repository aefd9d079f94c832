"""Fixtures of the integration tests."""

from collections.abc import Iterator

import pytest

from api.access_files import write_revoked
from state.database import Database
from state.revoked import Revoked
from tests.support.control import Control
from tests.support.front import Front, front_door
from tests.support.nginx import front_directory


@pytest.fixture(scope="session")
def shared_front() -> Iterator[Front]:
    """One front door for all tests: nginx keeps no state between requests."""
    with front_directory() as directory, front_door(directory) as front:
        yield front


@pytest.fixture
def front(shared_front: Front) -> Iterator[Front]:
    """With nothing remembered of earlier tests, and the keyring as it was at the end."""
    keyring = shared_front.keyring
    shared_front.hints.forget()
    for pod in (*shared_front.pods.values(), shared_front.api):
        pod.seen.clear()
        pod.answers.clear()
    yield shared_front
    shared_front.unshare()
    write_revoked(shared_front.nginx.settings.keyring, Revoked())
    shared_front.write_keyring(keyring)


@pytest.fixture
def control(db: Database) -> Control:
    """The control plane by hand, on a database of its own."""
    return Control(db)
