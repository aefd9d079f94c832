"""Where the simulated clock, trees and database take the place of the real ones, for as long as a run lasts.

Only names in modules are exchanged; no production function that decides anything is. Of chores, what is days
is minutes here.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog

from node_agent import agent, archives, chores, compacting, copies, freezer, perform, survey, sweep, watch
from node_agent.archive import commit, compact, upload
from reconciler import chores as due_chores
from reconciler import lead, lives, tick, timers
from state import compactions, sweeps
from tests.sim.care import SWEPT_AFTER
from tests.sim.chore_port import exchanged as chores_exchanged
from tests.sim.desks import Desks
from tests.sim.host import SimFreezer, SimTime
from tests.sim.life_port import LifePort
from tests.sim.trees import Trees
from tests.sim.truth import Violation


def _park(port: Any, workspace_id: str, reason: str, retry_at: datetime, leadership: Any) -> None:
    """Only a row that cannot be read is beyond deciding: a planner that raises is at fault."""
    if "cannot be read" not in reason:
        raise Violation("I12", f"the pass over {workspace_id} broke: {reason}")
    port.park(workspace_id, reason, retry_at, leadership)


# No chore takes longer, its last try included; a node that has one for longer has forgotten it.
CHORE_TIMEOUT = timedelta(seconds=180)
_LATER = "interval '3 days'"
_CHORES: list[tuple[Any, str, Any]] = [
    (due_chores, "CHORE_TIMEOUT", CHORE_TIMEOUT),
    (due_chores, "SUSPECT_SCRUB_EVERY", timedelta(seconds=40)),
    (due_chores, "TIDY_EVERY", timedelta(seconds=100)),
    (sweeps, "RETRY", timedelta(seconds=40)),
    (compactions, "ARCHIVES_PER_LOOK", 1),
    (
        compactions,
        "_SWEEP_LATER",
        compactions._SWEEP_LATER.replace(_LATER, f"interval '{SWEPT_AFTER.total_seconds()} seconds'"),
    ),
    (timers, "database_clock", lambda db: db.clock()),
    *chores_exchanged(),
]


@contextmanager
def installed(time: SimTime, trees: Trees, desks: Desks | None = None) -> Iterator[None]:
    """Put the simulated parts in, and the real ones back at the end."""
    exchanged: list[tuple[Any, str, Any]] = [
        (agent, "time", time),
        (agent, "Freezer", SimFreezer),
        (copies, "Freezer", SimFreezer),
        (freezer, "time", time),
        (perform, "time", time),
        (survey, "time", time),
        (archives, "datetime", time),
        (archives, "tree_fingerprint", trees.fingerprint),
        (archives, "fetching", trees.fetching),
        (archives, "unpack_archive", trees.unpack),
        (compact, "_rewrite", trees.rewrite),
        (compacting, "is_worth_compacting", lambda _manifest: True),
        (commit, "scan_tree", trees.scan),
        (commit, "tree_fingerprint", trees.fingerprint),
        (commit, "both", lambda one, other: (one(), other())),
        (upload, "capture_tree", trees.capture),
        (tick, "claim_due", lambda db, limit, again: db.claim_due(limit, again)),
        (tick, "read_world", lambda db, ids, since: db.read_world(ids, since)),
        (tick, "record", lambda db, plan, lead, now, ids: db.record(plan, lead, now, ids)),
        (tick, "park", _park),
        (lead, "try_lead", lambda db, holder, lease: db.try_lead(holder, lease)),
        (lead, "renew", lambda db, leadership, lease: db.renew(leadership, lease)),
        (lead, "database_clock", lambda db: db.clock()),
        (chores, "time", time),
        (sweep, "time", time),
        *_CHORES,
    ]
    if desks is not None:
        exchanged += [
            (watch, "time", time),
            (watch, "_look_at", desks.look_at),
            (watch, "write_notice", desks.write_notice),
            (lives, "policies", LifePort),
            (lives, "presence", LifePort),
            (lives, "read_world", lambda db, ids, since: db.read_world(ids, since)),
            (lives, "database_clock", lambda db: db.clock()),
        ]
    before = [getattr(module, name) for module, name, _ in exchanged]
    logs = structlog.get_config()
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=silent, cache_logger_on_first_use=False)
    for module, name, stand_in in exchanged:
        setattr(module, name, stand_in)
    try:
        yield
    finally:
        for (module, name, _), real in zip(exchanged, before, strict=True):
            setattr(module, name, real)
        structlog.configure(**logs)
