"""Fixtures for all tests live in tests/support, one file per real part."""

pytest_plugins = [
    "tests.support.postgres",
    "tests.support.rules",
    "tests.sim.postgres",
    "tests.support.api_server",
]
