"""Fixtures for all tests live in tests/support, one file per real part."""

import os

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
