"""What makes this installation this one: its id, its nodes, and the secrets they share. `config.json`, 0600.

Node ids carry the installation's id, so that two checkouts on one Docker engine never see each other's
containers: the agent and `make clean` go by the label `codepods.node`.
"""

import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from compose.layout import Layout, write_private
from compose.problems import ProblemError

NODES_MAX = 16
_ID_BYTES = 3


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node agent: its id, and the token that the gateway knows it by."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class Installation:
    """The installation's id (6 hex digits), all nodes it ever had, and how many of them run."""

    id: str
    nodes: tuple[NodeConfig, ...]
    nodes_running: int

    @property
    def running(self) -> tuple[NodeConfig, ...]:
        """The nodes whose agents are started."""
        return self.nodes[: self.nodes_running]

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Of all nodes, also of those that do not run now: their containers are ours too."""
        return tuple(node.id for node in self.nodes)


def load_installation(layout: Layout) -> Installation | None:
    """The installation of this home, if there is one. Raises `ProblemError` when its file cannot be read."""
    try:
        raw = json.loads(layout.config.read_text())
        nodes = tuple(NodeConfig(str(node["id"]), str(node["token"])) for node in raw["nodes"])
        return Installation(str(raw["id"]), nodes, int(raw["nodes_running"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProblemError(
            f"{layout.config} cannot be read ({error!r}). It holds the names of this installation's nodes: "
            "restore it, or begin anew with another CODEPODS_HOME."
        ) from error


def with_nodes(installation: Installation | None, count: int | None) -> Installation:
    """The installation, new if need be, with `count` running nodes; None means as many as the last time."""
    current = installation or Installation(secrets.token_hex(_ID_BYTES), (), 1)
    wanted = current.nodes_running if count is None else count
    if not 0 < wanted <= NODES_MAX:
        raise ProblemError(f"{wanted} nodes cannot be run: give a number from 1 to {NODES_MAX}.")
    first_new = len(current.nodes) + 1
    made = (_new_node(number, current.id) for number in range(first_new, wanted + 1))
    return replace(current, nodes=(*current.nodes, *made), nodes_running=wanted)


def _new_node(number: int, installation_id: str) -> NodeConfig:
    return NodeConfig(f"node-{number}-{installation_id}", secrets.token_urlsafe(32))


def save_installation(installation: Installation, path: Path) -> None:
    """Replace the file in one step."""
    write_private(path, json.dumps(asdict(installation), indent=2) + "\n")
