"""A connection to the database for chores: stands for what `reconciler.chores` asks of `state`."""

from collections.abc import Callable
from typing import Any

from reconciler import chores
from tests.sim.care import SimCare
from tests.sim.database import SimDatabase

# Nothing is told of images here, nor of what nobody knows.
_LEFT_OUT = ("make_image_sweep", "make_survey")


def exchanged() -> list[tuple[Any, str, Any]]:
    """The names in `reconciler.chores` that stand for transactions' parts, and what takes their places."""
    names = [name for name in vars(SimCare) if not name.startswith("_")]
    left_out = [(chores, name, lambda _db, *_asked: False) for name in _LEFT_OUT]
    return [*((chores, name, _on_care(name)) for name in names), *left_out]


def _on_care(name: str) -> Callable[..., Any]:
    def call(db: SimDatabase, *arguments: Any) -> Any:
        return getattr(db.care, name)(*arguments)

    return call
