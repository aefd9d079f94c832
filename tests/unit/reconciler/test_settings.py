"""The reconciler's settings."""

from dataclasses import fields

import pytest

from reconciler.settings import Settings
from state.model import Limits


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Nothing is set but what has no default."""
    monkeypatch.setenv("CODEPODS_DATABASE_URL", "postgresql://u:secret@db/x")
    return Settings()  # type: ignore[call-arg]


def test_every_limit_can_be_set_and_is_left_as_it_is_otherwise(settings: Settings) -> None:
    """Bounds are never hidden: each has a setting of its own name, and the defaults are those of Limits."""
    assert {field.name for field in fields(Limits)} < set(Settings.model_fields)
    assert settings.limits() == Limits()


def test_every_setting_says_what_it_is_for() -> None:
    """The documentation is made from this."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_limit_is_read_from_the_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations in seconds, everything else as a number."""
    monkeypatch.setenv("CODEPODS_ARCHIVE_GRACE", "1.5")
    monkeypatch.setenv("CODEPODS_OPEN_STARTS_PER_NODE_MAX", "7")
    limits = Settings().limits()  # type: ignore[call-arg]

    assert (limits.archive_grace.total_seconds(), limits.open_starts_per_node_max) == (1.5, 7)


def test_the_password_of_the_database_is_never_shown(settings: Settings) -> None:
    """Settings end up in logs."""
    assert "secret" not in repr(settings)
