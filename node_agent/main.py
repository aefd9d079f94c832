"""Wiring: settings, logs, the lock on the data directory, signals, a graceful stop."""

import fcntl
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import structlog
from pydantic import ValidationError

from node_agent.agent import Agent
from node_agent.allocator import give_back_large_buffers
from node_agent.archive.memory import Memory
from node_agent.archive.turns import Turns
from node_agent.archives import Archives
from node_agent.docker_pulls import PullBounds
from node_agent.docker_runtime import DockerRuntime
from node_agent.facts import agent_version, outgoing_mtu_bytes
from node_agent.failpoints import VARIABLE, Failpoints
from node_agent.fencer import Fences
from node_agent.firewall import Firewall, name_servers_of, rules_for
from node_agent.gateway_client import GatewayClient
from node_agent.host import HostFiles
from node_agent.images import Images
from node_agent.journal import Journal
from node_agent.open_store import open_masters, open_store, sealed
from node_agent.parts import Parts, network_plan
from node_agent.settings import Settings
from node_agent.store_watch import StoreWatch
from node_agent.uploads import UploadJournal
from node_agent.ways import Ways
from state import logs

EXIT_CONFIGURATION = 2
RESOLV_CONF = Path("/etc/resolv.conf")

log = structlog.get_logger(__name__)


def main() -> None:
    """Entry point `codepods-node-agent`."""
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit(_settings_message(error))
    logs.configure(settings.log_format, settings.log_level)
    give_back_large_buffers()
    try:
        lock = _lock(settings.data_dir)
        parts = make_parts(settings)
    except (OSError, ValueError) as error:
        log.error("agent.cannot_start", why=str(error))
        sys.exit(EXIT_CONFIGURATION)
    run(Agent(parts, GatewayClient(settings)), settings)
    lock.close()


def run(agent: Agent, settings: Settings) -> None:
    """Until SIGTERM or SIGINT; a second one ends it at once. Pods keep running either way."""
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        if ended.is_set():
            os._exit(1)
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    log.info("agent.started", node=settings.node_id, version=agent_version(), gateway=settings.gateway_url)
    agent.start()
    ended.wait()
    agent.stop()
    log.info("agent.stopped")


def make_parts(settings: Settings) -> Parts:
    """All ports on the real things. Raises OSError or ValueError for settings that cannot be."""
    points = Failpoints(os.environ.get(VARIABLE, ""))
    uploads = UploadJournal(settings.data_dir / "uploads")
    masters = open_masters(settings.store_key_file, settings.store_kms_key)
    store = points.around(sealed(open_store(settings.store_url, uploads), masters), "store")
    store_watch = StoreWatch()
    store_watch.start(store, uploads, settings.store_url.partition("?")[0])
    blocked = (*settings.blocked_networks, *_addresses_of(settings.gateway_url))
    mtu_bytes = settings.pod_mtu_bytes or outgoing_mtu_bytes()
    name_servers = name_servers_of(RESOLV_CONF.read_text()) if RESOLV_CONF.exists() else ()
    bounds = PullBounds(settings.pull_silence_s_max, settings.pull_timeout_s_max)
    runtime = points.around(DockerRuntime(settings.node_id, settings.docker_host, bounds), "runtime")
    ways = Ways(runtime, settings.archive_way, settings.data_dir / "scratch")
    ways.sweep()
    return Parts(
        settings=settings,
        runtime=runtime,
        host=HostFiles(settings.data_dir),
        journal=Journal(settings.data_dir / "journal.json", settings.node_id),
        archives=Archives(store, Memory(settings.data_dir / "archives"), Turns(settings.uploads_at_once)),
        firewall=Firewall(rules_for(settings.node_id, name_servers, blocked)),
        network=network_plan(settings.node_id, mtu_bytes),
        fences=Fences(settings.data_dir / "fences.json"),
        ways=ways,
        store_watch=store_watch,
        images=Images(runtime, store),
    )


def _addresses_of(url: str) -> tuple[str, ...]:
    """The control plane's addresses, which pods may not reach (LAW 17)."""
    try:
        return tuple(socket.gethostbyname_ex(urlsplit(url).hostname or "")[2])
    except OSError:
        return ()


def _lock(data_dir: Path) -> IO[str]:
    """One agent per data directory; the kernel lets go of the lock when the process ends, however it ends."""
    data_dir.mkdir(parents=True, exist_ok=True)
    file = (data_dir / "agent.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(
            f"another agent uses {data_dir} already: stop it, or set CODEPODS_AGENT_DATA_DIR"
        ) from error
    return file


def _settings_message(error: ValidationError) -> str:
    lines = [
        f"  {'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
        for detail in error.errors(include_url=False, include_input=False)
    ]
    return "\n".join(["The node agent's settings cannot be used (see docs/settings.md):", *lines])


if __name__ == "__main__":
    main()
