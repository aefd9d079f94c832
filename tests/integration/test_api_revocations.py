"""Revoking through the API: the rows, the file that nginx reads, the key ring, and visitors."""

import time
from dataclasses import replace

import httpx
import pytest

from api import access_files
from api.access_token import AccessClaims, Keyring, open_token, seal
from state import revocations
from state.revoked import REVOKED_FILE, Revoked
from tests.integration.test_api_pods import create, want
from tests.support.api_server import ApiServer

PATH = "/api/v1/revocations"


def revoke(api: ApiServer, kind: str, subject: str, **more: str) -> httpx.Response:
    """By an admin."""
    with api.client() as client:
        return client.post(PATH, json={"kind": kind, "subject": subject, **more})


def told_to_nginx(api: ApiServer) -> Revoked:
    """What the gate reads."""
    return Revoked.read(api.settings.keyring.with_name(REVOKED_FILE).read_text())


@pytest.mark.parametrize("kind", ["user", "pod", "session"])
def test_what_is_revoked_is_told_to_nginx_at_once(api: ApiServer, kind: str) -> None:
    """With when, by whom and why in the history."""
    before = int(time.time())

    made = revoke(api, kind, f"a-{kind}", reason="lost laptop")

    assert made.status_code == 201
    assert before <= getattr(told_to_nginx(api), kind)[f"a-{kind}"] <= time.time()
    with api.client() as client:
        assert made.json() in client.get(PATH).json()["revocations"]
        events = client.get("/api/v1/events", params={"limit": 100}).json()["events"]
    [event] = [e for e in events if (e["detail"] or {}).get("subject") == f"a-{kind}"]
    assert (event["kind"], event["to_value"], event["reason"]) == ("access", "revoked", "lost laptop")
    assert event["actor"] == made.json()["actor"]


def test_a_revoked_key_leaves_the_ring(api: ApiServer) -> None:
    """A fresh one seals, and it does not come back with the next look at the rows."""
    leaked = Keyring.load(api.settings.keyring).current

    revoke(api, "key", leaked)

    ring = Keyring.load(api.settings.keyring)
    assert leaked not in ring.keys
    access_files.level(api.db, api.settings)
    assert Keyring.load(api.settings.keyring) == ring


@pytest.mark.parametrize("scope", ["revpro", "read", None])
def test_only_admins_throw_people_out(api: ApiServer, scope: str | None) -> None:
    """And nothing is written by others."""
    with api.client(scope) as client:
        refused = client.post(PATH, json={"kind": "user", "subject": f"by-{scope}"})

    assert refused.status_code in {401, 403}
    access_files.level(api.db, api.settings)
    assert f"by-{scope}" not in told_to_nginx(api).user


def test_again_counts_from_then(api: ApiServer) -> None:
    """One row for each subject; what was issued in between is revoked too."""
    first = revoke(api, "user", "again").json()["revoked_at"]

    second = revoke(api, "user", "again").json()["revoked_at"]

    assert second > first
    assert [one.subject for one in revocations.in_force(api.db)].count("again") == 1


def test_a_revoked_visitor_wakes_nothing(api: ApiServer) -> None:
    """The start page of somebody who was thrown out is refused, also one that was sealed before."""
    with api.client("revpro") as client:
        pod_id = create(client, "revoked-visitor")["pod_id"]
        want(client, pod_id, "stopped")
    claims = AccessClaims(
        pod_id, "revoked-visitor", 1, "127.0.0.1:20999", "0" * 64, int(time.time()) + 60, "session"
    )
    token = seal(claims, Keyring.load(api.settings.keyring), "visit")
    page = httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    with page:
        assert page.get(f"/api/v1/pods/{pod_id}:visit").status_code == 200
        revoke(api, "user", "revoked-visitor")

        assert page.get(f"/api/v1/pods/{pod_id}:visit").status_code == 401
        assert page.post(f"/api/v1/pods/{pod_id}:wake").status_code == 401


def test_too_many_are_refused_with_what_to_do(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx reads them all for each new visit."""
    monkeypatch.setattr(revocations, "IN_FORCE_MAX", len(revocations.in_force(api.db)))

    refused = revoke(api, "user", "one-more")

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_revocations")


def test_the_key_is_changed_when_it_is_old(api: ApiServer) -> None:
    """Not before; then two are accepted, the older one too, and of several programs one changes it."""
    path = api.settings.keyring
    before = Keyring.load(path)
    claims = AccessClaims("pod-a", "alice", 1, "127.0.0.1:20999", "0" * 64, 2**40, "session")
    token = seal(claims, before, "url")
    period_s, due_s = 3600, before.current_since + 3600

    early = access_files.level_keyring(path, Revoked(), due_s - 1, period_s)
    late = access_files.level_keyring(path, Revoked(), due_s, period_s)
    again = access_files.level_keyring(path, Revoked(), int(time.time()), period_s)

    assert early == before
    assert late.current != before.current
    assert again == late == Keyring.load(path)
    assert open_token(token, late, "url", "pod-a", 0) == claims


def test_a_ring_that_does_not_say_since_when_is_as_old_as_its_file(api: ApiServer) -> None:
    """Those of the first release."""
    path = api.settings.keyring
    ring = Keyring.load(path)
    path.write_text(path.read_text().replace('"current_since"', '"unknown"'))

    assert Keyring.load(path) == replace(ring, current_since=int(path.stat().st_mtime))
