"""What is archived of a pod: a directory, how it came to be, and what was lost on the way."""

from dataclasses import dataclass
from pathlib import Path

from node_agent.archive.manifest import Method


@dataclass(frozen=True, slots=True)
class Source:
    """A directory with a pod's changes, as an overlay's upper directory has them."""

    directory: Path
    method: Method
    notices: tuple[str, ...] = ()
