"""The handlers about nodes."""

from api import views, wire
from api.operation import Answer, Call
from api.problems import ProblemError
from state import nodes


async def list_nodes(call: Call[wire.NoQuery, None]) -> Answer:
    """All nodes."""
    found = await call.deps.run(nodes.list_nodes, call.deps.db)
    return Answer(wire.NodeList(nodes=[views.node(status) for status in found]))


async def declare_lost(call: Call[wire.NoQuery, wire.DeclareLost]) -> Answer:
    """A person's word that the node will not come back."""
    try:
        status = await call.deps.run(
            nodes.declare_lost, call.deps.db, call.target_id, call.body.reason, actor=call.actor
        )
    except nodes.NodeNotFound as error:
        raise ProblemError("node_not_found", f"No node has the id {call.target_id}.") from error
    except nodes.NodeAlive as error:
        raise ProblemError("node_alive", str(error)) from error
    return Answer(views.node(status))


async def set_cordoned(call: Call[wire.NoQuery, wire.SetCordoned]) -> Answer:
    """Keep new placements off the node, or let them come again."""
    try:
        status = await call.deps.run(
            nodes.set_cordoned, call.deps.db, call.target_id, call.body.cordoned, actor=call.actor
        )
    except nodes.NodeNotFound as error:
        raise ProblemError("node_not_found", f"No node has the id {call.target_id}.") from error
    return Answer(views.node(status))
