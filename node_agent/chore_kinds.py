"""Which chores this version of the agent can do: the one place where kinds are put together."""

from collections.abc import Mapping

from node_agent.chores import Handler
from node_agent.compacting import compact_archive
from node_agent.image_sweep import survey, sweep_images
from node_agent.scrub import scrub
from node_agent.sweep import sweep, tidy

HANDLERS: Mapping[str, Handler] = {
    "compact": compact_archive,
    "scrub": scrub,
    "survey": survey,
    "sweep": sweep,
    "sweep_images": sweep_images,
    "tidy": tidy,
}
