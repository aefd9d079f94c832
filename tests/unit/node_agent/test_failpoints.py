"""Failpoints: what may be written, when their turn comes, and that they are not there when unset."""

import pytest

from node_agent.failpoints import Failpoints
from node_agent.store import StoreUnavailable


class Counting:
    """A port of one call."""

    def __init__(self) -> None:
        self.calls = 0

    def put(self) -> int:
        """One effect."""
        self.calls += 1
        return self.calls


def test_unset_the_port_is_used_as_it_is() -> None:
    """Nothing stands between."""
    port = Counting()

    assert Failpoints("").around(port, "store") is port


def test_an_error_comes_at_its_turn_and_after_the_effect() -> None:
    """The second call is carried out, and its answer is lost; the others pass."""
    port = Counting()
    watched = Failpoints("store.put.after:2=error").around(port, "store")

    assert watched.put() == 1
    with pytest.raises(StoreUnavailable):
        watched.put()
    assert watched.put() == 3


@pytest.mark.parametrize(
    "text", ["put:1=crash", "store.put.after:0=crash", "store.put.after=crash", "x.put.after:1=stop"]
)
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    """Before the agent starts, with an example of what can."""
    with pytest.raises(ValueError, match=r"store\.put_manifest\.after:1=crash"):
        Failpoints(text)
