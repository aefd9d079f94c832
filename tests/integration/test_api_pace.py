"""A token that asks too often is told so, and others are not slowed."""

from pathlib import Path

from tests.support.api_server import ApiServer


def test_a_token_that_asks_too_often_gets_a_429(database_url: str, tmp_path: Path) -> None:
    """With when to come again; another token is answered."""
    with (
        ApiServer.on(database_url, tmp_path, requests_per_s_max=1) as api,
        api.client("read") as busy,
        api.client("admin") as other,
    ):
        answers = [busy.get("/api/v1/nodes") for _ in range(20)]
        calm = other.get("/api/v1/nodes")

    refused = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == calm.status_code == 200
    assert {(one.json()["code"], one.headers["Retry-After"]) for one in refused} == {
        ("too_many_requests", "1")
    }
