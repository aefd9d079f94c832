"""Waiting for what comes by itself, with an end."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 120


def until(look: Callable[[], T], else_: str) -> T:
    """The first look that shows something. Fails the test with `else_` when none does."""
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < deadline, else_
        time.sleep(0.2)
    return seen
