"""What an agent finds out about its store, and tells."""

from datetime import timedelta
from pathlib import Path

import pytest

from node_agent.facts import find_facts, store_facts
from node_agent.open_store import open_store
from node_agent.store_watch import StoreWatch
from state.wire import StoreFacts
from tests.integration.test_store_resume import server
from tests.support.docker_node import DockerNode
from tests.support.ports import free_port
from tests.support.s3_servers import BUCKET, CREDENTIALS


@pytest.mark.parametrize(("kind", "conditional"), [("moto", True), ("rclone", False)])
def test_a_nodes_facts_tell_what_its_store_can(
    kind: str, conditional: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown until the store has answered; where it has no conditions, a notice says what is done."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    parts = DockerNode(tmp_path).parts
    assert store_facts(parts) is None
    with server(kind, tmp_path) as endpoint:
        assert parts.store_watch.look(open_store(f"s3://{BUCKET}?endpoint={endpoint}"), "s3")
    facts = find_facts(parts)
    assert facts.store == StoreFacts(conditional_put=conditional, conditional_complete=conditional)
    assert any("no conditional writes" in notice for notice in facts.notices) is not conditional
    parts.runtime.close()


def test_a_store_that_is_away_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is concluded from silence; the next look finds it."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    watch = StoreWatch()
    assert not watch.look(open_store(f"s3://{BUCKET}?endpoint=http://127.0.0.1:{free_port()}"), "away")
    assert watch.found is None
    assert watch.look(open_store(f"file://{tmp_path}"), "back")
    assert watch.found is not None
    assert open_store(f"file://{tmp_path}").drop_unfinished(timedelta(0)) == 0
