"""Which chores are due, on both databases: see twins.py."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler import chores
from tests.sim.care import SimCare

if TYPE_CHECKING:
    from tests.sim.twins import TwinDatabase

NAMES = tuple(name for name in vars(SimCare) if not name.startswith("_"))
_REAL: dict[str, Callable[..., Any]] = {name: getattr(chores, name) for name in NAMES}


class TwinCare(SimCare):
    """See SimCare; on PostgreSQL each part of a transaction is one of its own, at the same time."""

    def __init__(self, db: "TwinDatabase") -> None:
        super().__init__(db)
        self._twins = db

    def _both(self, name: str, *arguments: Any) -> Any:
        def real() -> Any:
            with self._twins.programs.transaction() as connection:
                return _REAL[name](connection, *arguments)

        return self._twins.both(name, partial(getattr(SimCare, name), self, *arguments), real)


def _on_both(name: str) -> Callable[..., Any]:
    def call(care: TwinCare, *arguments: Any) -> Any:
        return care._both(name, *arguments)

    return call


for _name in NAMES:
    setattr(TwinCare, _name, _on_both(_name))
