"""Archives over the API and podctl: which there are, going back, alarms."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from state.database import Database
from state.model import Desired
from tests.integration.test_api_podctl import Podctl
from tests.support.api_server import ApiServer
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ApiServer]:
    """An API on the database of the control plane by hand."""
    with ApiServer.on(database_url, tmp_path) as running:
        yield running


def test_from_the_list_of_archives_to_an_earlier_one(
    control: Control, db: Database, server: ApiServer
) -> None:
    """As an operator does it: look, go back, wait; unknown numbers are refused; alarms are told."""
    node: ScriptedNode = control.join("node-1")
    pod_id = control.pod("alice")
    for desired in (Desired.RUNNING, Desired.ARCHIVED) * 2:
        control.want(pod_id, desired)
        control.settle(node)
    podctl = Podctl(server)

    shown = podctl("archives", "alice/main", "--json").json
    assert [(one["number"], one["current"]) for one in shown if one["what"] == "pod"] == [
        (2, True),
        (1, False),
    ]
    assert "workspace" in podctl("archives", "alice/main").out
    refused = podctl("restore", "alice/main", "--at", "7", "--json")
    assert (refused.code, refused.json["code"]) == (1, "archive_not_found")

    asked = podctl("restore", "alice/main", "--at", "1", "--json")
    assert (asked.code, asked.json["settled"]) == (0, False)
    with server.client("revpro") as client:
        second = client.post(f"/api/v1/pods/{pod_id}:restore", json={"number": 2})
        assert (second.status_code, second.json()["code"]) == (409, "restore_under_way")
    control.settle(node)
    assert podctl("get", pod_id, "--json").json["archive"]["number"] == 1

    assert podctl("alarms").out == "No alarms.\n"
    control.rows(
        "INSERT INTO alarm (kind, subject, pod_id, message) VALUES ('test', 's', %s, 'Look.')", pod_id
    )
    assert "Look." in podctl("alarms").out
    with server.client("revpro") as client:
        assert client.get("/readyz").json() == {"status": "ok", "alarms": 1}
    assert "Alarm:     Look." in podctl("explain", pod_id).out
