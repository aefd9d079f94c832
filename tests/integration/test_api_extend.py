"""Keeping a pod running through the API and podctl, and what is shown of what is coming."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from state.database import Database
from tests.integration.test_api_bad_input import check_problem
from tests.integration.test_api_pods import create
from tests.support.api_server import ApiServer


def kept_until(api: ApiServer, pod_id: str) -> Any:
    """What the database has."""
    db = Database(api.database_url, "test", pool_size=1)
    with db.transaction() as conn:
        row = conn.execute("SELECT keep_until FROM pod WHERE id = %s", (pod_id,)).fetchone()
    db.close()
    assert row is not None
    return row["keep_until"]


def test_a_pod_is_kept_and_the_history_says_who_asked(api: ApiServer) -> None:
    """Seconds from now or a time; the longer of two stands; an event names the token."""
    with api.client("revpro") as client:
        pod = create(client, "extender")
        until = datetime.now(UTC) + timedelta(hours=2)
        first = client.post(f"/api/v1/pods/{pod['pod_id']}:extend", json={"until": until.isoformat()})
        second = client.post(f"/api/v1/pods/{pod['pod_id']}:extend", json={"seconds": 60})
        events = client.get(f"/api/v1/pods/{pod['pod_id']}/events").json()["events"]

    assert (first.status_code, second.status_code) == (200, 200)
    assert kept_until(api, pod["pod_id"]) == until
    assert events[-1]["actor"] == "api:test-revpro"
    assert "keep_until" in events[-1]["detail"]["changed"]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"seconds": 60, "until": "2100-01-01T00:00:00Z"},
        {"seconds": 28_801},
        {"until": "2020-01-01T00:00:00Z"},
        {"until": "2100-01-01T00:00:00Z"},
        {"until": "2100-01-01T00:00:00"},
    ],
)
def test_what_cannot_be_kept_is_refused(api: ApiServer, asked: dict[str, Any]) -> None:
    """Neither or both, the past, too long, a time without a zone."""
    with api.client("revpro") as client:
        pod = create(client, "refused")
        answer = client.post(f"/api/v1/pods/{pod['pod_id']}:extend", json=asked)

    check_problem(answer, "extension_refused")
    assert kept_until(api, pod["pod_id"]) is None


def test_a_pod_that_is_put_away_is_not_kept(api: ApiServer) -> None:
    """An extension wakes nothing."""
    with api.client("revpro") as client:
        pod = create(client, "asleep", desired="stopped")
        answer = client.post(f"/api/v1/pods/{pod['pod_id']}:extend", json={"seconds": 60})

    check_problem(answer, "pod_put_away")


def test_what_is_coming_is_shown(api: ApiServer) -> None:
    """When it will be stopped, why, and whether whoever is there was told."""
    with api.client("revpro") as client:
        pod = create(client, "watched")
        assert pod["stops"] is None
        db = Database(api.database_url, "test", pool_size=1)
        with db.transaction() as conn:
            conn.execute(
                "UPDATE pod_policy SET stops_at = now() + interval '3 min', rule = 'idle', warned_at = now(),"
                " reason = 'a tab is open, and was not touched for 60 min' WHERE pod_id = %s",
                (pod["pod_id"],),
            )
        db.close()
        shown = client.get(f"/api/v1/pods/{pod['pod_id']}").json()["stops"]

    assert shown["reason"] == "a tab is open, and was not touched for 60 min"
    assert (shown["warned"], shown["can_extend"]) == (True, True)
