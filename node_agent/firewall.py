"""Pods reach the internet and name servers; not each other, not this node, not the cloud's metadata (LAW 17).

Two chains of our own, one for what pods send onward (from DOCKER-USER) and one for what they send to this
node (from INPUT), both for the pods' own bridge only. Applying them again changes nothing.
"""

import hashlib
import ipaddress
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node_agent.errors import StepError

LINK_LOCAL = "169.254.0.0/16"  # holds the metadata address of every large cloud, 169.254.169.254
COMMAND_TIMEOUT_S = 20
APPLY_EVERY_S = 30.0
_TABLES = ("iptables", "iptables-nft", "iptables-legacy")


def short_name(node_id: str) -> str:
    """Ten hex digits for a node: interface and chain names are too short for its id."""
    return hashlib.sha256(node_id.encode()).hexdigest()[:10]


def bridge_name(node_id: str) -> str:
    """The pods' bridge interface (at most 15 characters)."""
    return f"cpods{short_name(node_id)}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the firewall of one bridge says. Networks are in CIDR form, name servers are addresses."""

    bridge: str
    chain: str
    name_servers: tuple[str, ...]
    blocked: tuple[str, ...]

    @property
    def onward_chain(self) -> str:
        """For packets from pods to other machines and to each other."""
        return f"{self.chain}-FWD"

    @property
    def inward_chain(self) -> str:
        """For packets from pods to this node itself."""
        return f"{self.chain}-IN"

    def restore_input(self) -> str:
        """For `iptables-restore --noflush`: both chains anew, in one step."""
        answers = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
        onward = [answers, f"-o {self.bridge} -j DROP", *self._name_service()]
        onward += [f"-d {network} -j DROP" for network in (LINK_LOCAL, *self.blocked)]
        inward = [answers, *self._name_service(), "-j DROP"]
        lines = ["*filter", f":{self.onward_chain} - [0:0]", f":{self.inward_chain} - [0:0]"]
        lines += [f"-A {self.onward_chain} {rule}" for rule in onward]
        lines += [f"-A {self.inward_chain} {rule}" for rule in inward]
        return "\n".join([*lines, "COMMIT", ""])

    def _name_service(self) -> list[str]:
        return [
            f"-d {server} -p {protocol} --dport 53 -j RETURN"
            for server in self.name_servers
            for protocol in ("udp", "tcp")
        ]


def rules_for(node_id: str, name_servers: Sequence[str], blocked: Sequence[str]) -> Rules:
    """The rules of a node's bridge; addresses of IPv6 are left out, for pods have none."""
    return Rules(
        bridge=bridge_name(node_id),
        chain=f"CODEPODS-{short_name(node_id)}",
        name_servers=tuple(server for server in name_servers if _is_ipv4(server)),
        blocked=tuple(network for network in blocked if _is_ipv4(network)),
    )


def _is_ipv4(network: str) -> bool:
    try:
        return ipaddress.ip_network(network, strict=False).version == 4
    except ValueError:
        return False


def name_servers_of(resolv_conf: str) -> tuple[str, ...]:
    """The name servers in the text of /etc/resolv.conf that are not on the loopback."""
    words = (line.split() for line in resolv_conf.splitlines())
    servers = (line[1].partition("%")[0] for line in words if len(line) > 1 and line[0] == "nameserver")
    return tuple(server for server in servers if _is_ipv4(server) and not server.startswith("127."))


class Firewall:
    """Applies the rules with the host's iptables. Safe to call from several threads."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._lock = threading.Lock()
        self._applied_at_s = -APPLY_EVERY_S

    def ensure(self) -> None:
        """Make the rules hold, if that was not done a moment ago: others flush rules now and then.

        Raises StepError(`network_not_isolated`): then no pod may start.
        """
        with self._lock:
            if time.monotonic() - self._applied_at_s < APPLY_EVERY_S:
                return
            iptables = self._find_tables()
            self._run([f"{iptables}-restore", "--noflush", "-w"], self._rules.restore_input())
            jumps = (("DOCKER-USER", self._rules.onward_chain), ("INPUT", self._rules.inward_chain))
            for chain, target in jumps:
                jump = ["-i", self._rules.bridge, "-j", target]
                if self._call([iptables, "-w", "-C", chain, *jump]).returncode != 0:
                    self._run([iptables, "-w", "-I", chain, "1", *jump])
            self._refuse_ipv6(iptables.replace("iptables", "ip6tables"))
            self._applied_at_s = time.monotonic()

    def remove(self) -> None:
        """Take the rules away again: for tests and for uninstalling."""
        with self._lock:
            self._applied_at_s = -APPLY_EVERY_S
            iptables = self._find_tables()
            for chain, target in (
                ("DOCKER-USER", self._rules.onward_chain),
                ("INPUT", self._rules.inward_chain),
            ):
                self._call([iptables, "-w", "-D", chain, "-i", self._rules.bridge, "-j", target])
                self._call([iptables, "-w", "-F", target])
                self._call([iptables, "-w", "-X", target])
            for chain in ("FORWARD", "INPUT"):
                ip6tables = iptables.replace("iptables", "ip6tables")
                self._call([ip6tables, "-w", "-D", chain, "-i", self._rules.bridge, "-j", "DROP"])

    def _find_tables(self) -> str:
        """The iptables that the engine uses: the one that has the engine's chain."""
        for name in _TABLES:
            try:
                if self._call([name, "-w", "-n", "-L", "DOCKER-USER"]).returncode == 0:
                    return name
            except FileNotFoundError:
                continue
        raise StepError(
            "Pods cannot be kept apart: the engine's chain DOCKER-USER was not found with iptables. "
            "Install iptables, run the agent as root, and let the engine manage iptables.",
            code="network_not_isolated",
        )

    def _refuse_ipv6(self, ip6tables: str) -> None:
        if not Path("/proc/sys/net/ipv6").exists():
            return
        for chain in ("FORWARD", "INPUT"):
            rule = ["-i", self._rules.bridge, "-j", "DROP"]
            if self._call([ip6tables, "-w", "-C", chain, *rule]).returncode != 0:
                self._run([ip6tables, "-w", "-I", chain, "1", *rule])

    def _run(self, command: list[str], text: str = "") -> None:
        done = self._call(command, text)
        if done.returncode != 0:
            raise StepError(
                f"Pods cannot be kept apart: {' '.join(command)} failed: {done.stderr.strip()[:300]}. "
                "Run the agent as root, with iptables installed.",
                code="network_not_isolated",
            )

    @staticmethod
    def _call(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
