"""What a node is and can do, found out from its engine and settings."""

from importlib import metadata
from pathlib import Path

from node_agent.archive.safe_capture import LOSSES
from node_agent.archive.safe_restore import LOST_AT_RESTORE
from node_agent.errors import StepError
from node_agent.parts import PLAIN_RUNTIME, Parts
from node_agent.settings import Settings
from node_agent.ways import Found, Way
from state.wire import NodeFacts, StoreFacts

_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
ETHERNET_MTU_BYTES = 1500


def agent_version() -> str:
    """Of the installed package; `dev` when run from a checkout that is not installed."""
    try:
        return metadata.version("codepods")
    except metadata.PackageNotFoundError:
        return "dev"


def unknown_facts(settings: Settings) -> NodeFacts:
    """For as long as the engine has not been reached."""
    return NodeFacts(
        address=settings.upstream_address,
        cpu_millis=0,
        memory_mib=0,
        engine_version="unknown",
        api_version="unknown",
        storage_driver="unknown",
        runtime="",
        agent_version=agent_version(),
    )


def find_facts(parts: Parts) -> NodeFacts:
    """Ask the engine. Raises StepError."""
    engine = parts.runtime.facts()
    settings = parts.settings
    runtime, found = _runtime(parts), parts.ways.found()
    return NodeFacts(
        address=settings.upstream_address,
        cpu_millis=settings.cpu_millis or engine.cpu_millis,
        memory_mib=settings.memory_mib or engine.memory_mib,
        engine_version=engine.engine_version,
        api_version=engine.api_version,
        storage_driver=engine.storage_driver,
        runtime=runtime,
        agent_version=agent_version(),
        archive_way=found.way,
        store=store_facts(parts),
        notices=_notices(runtime, found, store_facts(parts)),
    )


def _runtime(parts: Parts) -> str:
    try:
        return parts.container_runtime()
    except StepError:
        return ""


def store_facts(parts: Parts) -> StoreFacts | None:
    """What the probe of the store found; None while it has not answered."""
    found = parts.store_watch.found
    if found is None:
        return None
    return StoreFacts(conditional_put=found.conditional_put, conditional_complete=found.conditional_complete)


def _notices(runtime: str, found: Found, store: StoreFacts | None) -> tuple[str, ...]:
    notices = []
    if runtime == "":
        notices.append("no pods are started here: no sandbox runtime, and running without was not accepted")
    if runtime == PLAIN_RUNTIME:
        notices.append("pods run without a sandbox (runc), as the operator has accepted")
    if found.way is Way.SAFE:
        notices.append(f"pods are archived the safe way, which is slower and keeps less: {found.why}")
        notices += [*LOSSES, LOST_AT_RESTORE]
    if _BRIDGE_FILTER.exists() and _BRIDGE_FILTER.read_text().strip() != "1":
        notices.append(f"pods may reach each other: {_BRIDGE_FILTER} is off")
    if store is not None and not (store.conditional_put and store.conditional_complete):
        notices.append("the store has no conditional writes; keys and the database keep archives apart")
    return tuple(notices)


def outgoing_mtu_bytes(routes: str = "/proc/net/route", interfaces: str = "/sys/class/net") -> int:
    """Of the interface with the default route, at most Ethernet's: pods must not send what cannot pass."""
    try:
        rows = [line.split() for line in Path(routes).read_text().splitlines()[1:]]
        name = next(row[0] for row in rows if row[1] == "00000000")
        mtu_bytes = int((Path(interfaces) / name / "mtu").read_text())
    except (OSError, StopIteration, IndexError, ValueError):
        return ETHERNET_MTU_BYTES
    return min(mtu_bytes, ETHERNET_MTU_BYTES)
