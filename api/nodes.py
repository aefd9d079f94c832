"""The handlers about nodes."""

from api import views, wire
from api.operation import Answer, Call
from state import nodes


async def list_nodes(call: Call[wire.NoQuery, None]) -> Answer:
    """All nodes."""
    found = await call.deps.run(nodes.list_nodes, call.deps.db)
    return Answer(wire.NodeList(nodes=[views.node(status) for status in found]))
