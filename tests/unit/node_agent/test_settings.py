"""The agent's settings come from the environment."""

import pytest
from pydantic import ValidationError

from node_agent.settings import Settings


def test_the_agents_own_name_wins_over_the_common_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's settings hold for all programs, unless the agent has its own."""
    monkeypatch.setenv("CODEPODS_NODE_ID", "n1")
    monkeypatch.setenv("CODEPODS_STORE_URL", "file:///all")
    monkeypatch.setenv("CODEPODS_AGENT_STORE_URL", "file:///agent")
    monkeypatch.setenv("CODEPODS_AGENT_BLOCKED_NETWORKS", '["10.0.0.0/8"]')
    settings = Settings()
    assert (settings.node_id, settings.store_url) == ("n1", "file:///agent")
    assert settings.blocked_networks == ("10.0.0.0/8",)
    assert settings.accept_unsandboxed is False


def test_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings may be logged."""
    monkeypatch.setenv("CODEPODS_NODE_ID", "n1")
    monkeypatch.setenv("CODEPODS_NODE_TOKEN", "geheim")
    assert "geheim" not in repr(Settings())


@pytest.mark.parametrize("node_id", ["", "Not An Id", "-x", "n" * 64])
def test_a_node_id_that_cannot_be_one_is_refused(node_id: str) -> None:
    """It becomes part of names and labels."""
    with pytest.raises(ValidationError):
        Settings(node_id=node_id)
