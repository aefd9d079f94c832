"""Fixtures for all tests live in tests/support, one file per real part."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.support.postgres",
    "tests.support.replica",
    "tests.support.rules",
    "tests.support.stalling_registry",
    "tests.sim.postgres",
    "tests.support.api_server",
    "tests.support.small_images",
]

# The same examples at each run, so that what fails here fails anywhere; CODEPODS_DRAWS=new looks for others.
# How long an example takes says something about the machine only.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", _UNTIMED, derandomize=True)
settings.register_profile("new", _UNTIMED)
settings.load_profile(os.environ.get("CODEPODS_DRAWS", "fixed"))


def pytest_collection_finish() -> None:
    _collect_anew()


@pytest.fixture(autouse=True, scope="module")
def _blamed_for_what_its_fixtures_left_open() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _blamed_for_what_it_left_open() -> Iterator[None]:
    """What is left unclosed is an error: of the test that left it, not of whichever runs when it is found."""
    yield
    _collect_anew()


def _collect_anew() -> None:
    """What outlives this is not looked through again: over thousands of tests that would take minutes."""
    gc.collect()
    gc.freeze()
