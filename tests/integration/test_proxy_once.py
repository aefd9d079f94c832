"""Links that open once, or in one browser only."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from compose.edge import sweep
from tests.support.front import PAGE, Front
from tests.support.nginx import Answer


def redeem(front: Front, token: str, *headers: tuple[str, str]) -> Answer:
    """Follow the link."""
    return front.nginx.ask(f"/pods/pod-a/?tkn={token}", [*PAGE, *headers])


def assert_used(answer: Answer) -> None:
    """A page that says so, and what to do."""
    assert (answer.status, "This link has been used" in answer.body) == (410, True)
    assert not answer.all("Set-Cookie")
    assert answer.header("Referrer-Policy") == "no-referrer"


def cookie_of(answer: Answer) -> tuple[str, str]:
    """What the browser sends from then on."""
    assert answer.status == 303
    return ("Cookie", (answer.header("Set-Cookie") or "").partition(";")[0])


def test_a_link_for_once_opens_once(front: Front) -> None:
    """Whoever comes second, with or without the cookie of the first."""
    token = front.token("pod-a", reuse="once")

    ours = cookie_of(redeem(front, token))

    assert_used(redeem(front, token))
    assert_used(redeem(front, token, ours))
    assert front.nginx.ask("/pods/pod-a/", [ours]).status == 200


def test_a_link_for_one_browser_opens_again_there_only(front: Front) -> None:
    """Its own cookie says that it is the same; another session of the same pod does not."""
    token = front.token("pod-a", reuse="browser", session_id="mine")

    ours = cookie_of(redeem(front, token))

    assert_used(redeem(front, token))
    assert_used(redeem(front, token, front.cookie("pod-a", session_id="another")))
    assert_used(redeem(front, token, front.cookie("pod-a", session_id="mine", expires_at=1)))
    cookie_of(redeem(front, token, ours))


def test_of_many_at_once_one_is_first(front: Front) -> None:
    """Leaving the mark is one step."""
    token = front.token("pod-a", reuse="once")

    with ThreadPoolExecutor(8) as threads:
        statuses = [answer.status for answer in threads.map(lambda _: redeem(front, token), range(24))]

    assert sorted(set(statuses)) == [303, 410]
    assert statuses.count(303) == 1


def test_a_preview_does_not_use_a_link_up(front: Front) -> None:
    """Messengers look at links before people do."""
    token = front.token("pod-a", reuse="once")

    assert front.nginx.ask(f"/pods/pod-a/?tkn={token}", method="HEAD").status == 403
    cookie_of(redeem(front, token))


def test_each_link_has_a_mark_of_its_own(front: Front) -> None:
    """Also two of one session; scripts and sockets get their own words."""
    for _ in range(2):
        cookie_of(redeem(front, front.token("pod-a", reuse="once", session_id="same")))
    token = front.token("pod-a", reuse="once")
    redeem(front, token)

    answer = front.nginx.ask(f"/pods/pod-a/?tkn={token}", [("Accept", "application/json")])
    assert (answer.status, answer.json()["code"]) == (410, "link_used")


def test_without_room_for_marks_no_such_link_opens(front: Front) -> None:
    """Nobody can know that it is the first."""
    used = front.nginx.settings.used
    used.rename(used.with_name("away"))
    try:
        refused = redeem(front, front.token("pod-a", reuse="once"))
        assert (refused.status, redeem(front, front.token("pod-a")).status) == (403, 303)
    finally:
        used.with_name("away").rename(used)


@pytest.mark.parametrize(("age_s", "kept"), [(10, True), (70, False)])
def test_marks_go_when_their_links_have_expired(front: Front, age_s: int, kept: bool) -> None:
    """And not before."""
    used = front.nginx.settings.used
    earlier = set(used.iterdir())
    cookie_of(redeem(front, front.token("pod-a", reuse="once")))
    (mark,) = set(used.iterdir()) - earlier

    sweep(used, time.time() + age_s)

    assert mark.exists() is kept
