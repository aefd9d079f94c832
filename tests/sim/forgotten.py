"""A small model of state.forgotten: numbers that nodes have seen, and the database does not know."""

from state.forgotten import EPOCHS_AHEAD_MAX
from state.model import ActionState, Placement
from state.wire import Report
from tests.sim.database import SimDatabase
from tests.sim.rows import ActionRow, WorkspaceRow


def go_above(db: SimDatabase, node_id: str, report: Report) -> int:
    """See state.forgotten; how many numbers are not given any more."""
    told: dict[str, int] = {}
    for line in (*report.pods, *report.workspaces):
        told[line.workspace_id] = max(line.epoch, told.get(line.workspace_id, line.epoch))
    above = 0
    for workspace_id, epoch in sorted(told.items()):
        row = db.workspaces.get(workspace_id)
        if row is None or row.placement == Placement(node_id, epoch) or epoch > row.epoch + EPOCHS_AHEAD_MAX:
            continue
        placed = row.placement
        if placed is not None and placed.node_id == node_id and epoch > placed.epoch:
            _end(db, row)
            row.epoch, row.placement = max(row.epoch, epoch), Placement(node_id, epoch)
            row.placed_at = db.clock()
            db.watch.taken_over(row.id, row.placement)
            row.due_at = db.clock()
        elif epoch >= row.epoch:
            above += 1
            row.epoch, row.due_at = epoch + 1, db.clock()
    db.given_up += above
    return above


def give_way(db: SimDatabase, action: ActionRow) -> bool:
    """See state.forgotten; whether its placement was live."""
    row = db.workspaces[action.action.workspace_id]
    if row.placement != Placement(action.node_id, action.action.epoch):
        return False
    _end(db, row)
    row.epoch, row.due_at = row.epoch + 1, db.clock()
    db.given_up += 1
    db.watch.gave_way(row.id)
    return True


def _end(db: SimDatabase, row: WorkspaceRow) -> None:
    row.placement = None
    db.room_made()
    for action in [open_ for open_ in db.open.values() if open_.action.workspace_id == row.id]:
        db.close(action, ActionState.SUPERSEDED)
