"""Which chores this version of the agent can do: the one place where kinds are put together."""

from collections.abc import Mapping

from node_agent.chores import Handler

HANDLERS: Mapping[str, Handler] = {}
