"""Fixtures for all tests live in tests/support, one file per real part."""

import os

from hypothesis import settings

pytest_plugins = [
    "tests.support.postgres",
    "tests.support.rules",
    "tests.sim.postgres",
    "tests.support.api_server",
]

# The same examples at each run, so that what fails here fails anywhere; CODEPODS_DRAWS=new looks for others.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("new", derandomize=False)
settings.load_profile(os.environ.get("CODEPODS_DRAWS", "fixed"))
