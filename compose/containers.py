"""What this installation has in the engine, found by its nodes' ids and nothing else.

Through the `docker` command: the SDK belongs to the node agent, which is not running when this is needed.
"""

import contextlib
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from compose.problems import ProblemError

# What says whose something is, by kind. Scratch is what an agent tries the engine with at its start; one that
# was killed then leaves it.
_OURS = {
    "container": ("label=codepods.node={}", "label=codepods.scratch={}"),
    "network": ("name=^codepods-{}$",),
    "volume": ("label=codepods.node={}",),
    "image": ("label=codepods.scratch={}",),
}
STOPS_AT_ONCE = 4
STOP_GRACE_S = 10
COMMAND_TIMEOUT_S = 120

Kind = Literal["container", "volume", "network", "image"]
Tell = Callable[[str], None]


def docker(*arguments: str) -> str:
    """What `docker …` prints. Raises `ProblemError` when the engine cannot be asked or refuses."""
    try:
        done = subprocess.run(
            ("docker", *arguments), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise ProblemError("There is no `docker` command. Install Docker: `make up` offers to.") from error
    except subprocess.TimeoutExpired as error:
        raise ProblemError(
            f"`docker {arguments[0]}` did not end in {COMMAND_TIMEOUT_S} s: see the log of the engine."
        ) from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ProblemError(f"`docker {' '.join(arguments[:2])}` failed: {said}")
    return done.stdout


def of_nodes(kind: Kind, node_ids: tuple[str, ...], *, running_only: bool = False) -> list[str]:
    """The ids of everything of this kind that is one of these nodes'."""
    every = () if kind != "container" or running_only else ("--all",)
    found: list[str] = []
    for node_id in node_ids:
        for ours in _OURS[kind]:
            found += docker(kind, "ls", "--quiet", *every, "--filter", ours.format(node_id)).split()
    return found


def stop_pods(node_ids: tuple[str, ...], tell: Tell) -> int:
    """Stop the running containers of these nodes, some at a time, and keep them. How many there were."""
    running = of_nodes("container", node_ids, running_only=True)
    stop = ("container", "stop", "--time", str(STOP_GRACE_S))
    with ThreadPoolExecutor(STOPS_AT_ONCE) as pool:
        for number, _ in enumerate(pool.map(lambda one: _tolerantly(*stop, one), running), 1):
            tell(f"{number} of {len(running)} pods stopped")
    return len(running)


def remove_everything(node_ids: tuple[str, ...], tell: Tell) -> dict[Kind, int]:
    """Remove all that these nodes have in the engine, for good; how many of each kind.

    Images of pods stay: they are of no node.
    """
    removed: dict[Kind, int] = {}
    kinds: tuple[tuple[Kind, tuple[str, ...]], ...] = (
        ("container", ("container", "rm", "--force", "--volumes")),
        ("network", ("network", "rm")),
        ("volume", ("volume", "rm", "--force")),
        ("image", ("image", "rm")),
    )
    for kind, command in kinds:
        found = of_nodes(kind, node_ids)
        for number, one in enumerate(found, 1):
            docker(*command, one)
            tell(f"{number} of {len(found)} {kind}s removed")
        removed[kind] = len(found)
    return removed


def _tolerantly(*arguments: str) -> None:
    """One container that cannot be stopped must not keep the others running."""
    with contextlib.suppress(ProblemError):
        docker(*arguments)
