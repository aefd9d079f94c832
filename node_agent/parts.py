"""What the steps of one node are done with: its ports and its memory, put together by `main`."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from node_agent.archives import Archives
from node_agent.errors import StepError, TakenBack
from node_agent.fencer import Fences
from node_agent.firewall import Firewall, bridge_name
from node_agent.ghosts import Ghosts
from node_agent.host import HostFiles
from node_agent.images import Images
from node_agent.journal import Journal
from node_agent.readiness import ide_answers
from node_agent.ready_memory import ReadyMemory
from node_agent.runtime import NetworkPlan, Runtime
from node_agent.settings import Settings
from node_agent.steps import check_epoch
from node_agent.store_watch import StoreWatch
from node_agent.ways import Ways
from state.wire import Action

SANDBOX_RUNTIME = "sysbox-runc"
PLAIN_RUNTIME = "runc"

ProgressNote = Callable[[str, int, int | None], None]


def no_note(phase: str, done_bytes: int, total_bytes: int | None) -> None:
    """For steps that nobody watches."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything with an effect, so that each can be replaced by one that fails on purpose."""

    settings: Settings
    runtime: Runtime
    host: HostFiles
    journal: Journal
    archives: Archives
    firewall: Firewall
    network: NetworkPlan
    fences: Fences
    ways: Ways
    images: Images
    ready: ReadyMemory = field(default_factory=ReadyMemory)
    store_watch: StoreWatch = field(default_factory=StoreWatch)
    ghosts: Ghosts = field(default_factory=Ghosts)
    ide_answers: Callable[[str, int, str], bool] = ide_answers

    def container_runtime(self) -> str:
        """What containers run under. Raises StepError(`no_sandbox`) where nothing acceptable is there."""
        if SANDBOX_RUNTIME in self.runtime.facts().runtimes:
            return SANDBOX_RUNTIME
        if self.settings.accept_unsandboxed:
            return PLAIN_RUNTIME
        raise StepError(
            f"This node starts no pods: its engine has no {SANDBOX_RUNTIME}, and running pods without a "
            "sandbox was not accepted. Install Sysbox, or set CODEPODS_AGENT_ACCEPT_UNSANDBOXED=true.",
            code="no_sandbox",
        )


def network_plan(node_id: str, mtu_bytes: int) -> NetworkPlan:
    """The pods' network of a node."""
    return NetworkPlan(name=f"codepods-{node_id}", bridge=bridge_name(node_id), mtu_bytes=mtu_bytes)


@dataclass(frozen=True, slots=True)
class Fence:
    """Asked right before each effect: is the action still wanted, and still of the newest placement?"""

    action: Action
    journal: Journal
    taken_back: threading.Event

    def check(self) -> None:
        """Raises StaleEpoch or TakenBack."""
        check_epoch(self.action, self.journal.highest(self.action.workspace_id))
        if self.taken_back.is_set():
            raise TakenBack(self.action.id)
