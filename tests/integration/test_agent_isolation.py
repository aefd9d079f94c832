"""LAW 17 on real pods: they reach other hosts, not each other, not their node, not the metadata address."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from node_agent.firewall import short_name
from tests.support.docker_node import ONE, TWO, DockerNode

METADATA = "169.254.169.254"
# Connects, and says how that went; a refused connection has reached the other side's kernel.
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("connected")
except ConnectionRefusedError:
    print("refused")
except OSError as error:
    print("nothing", error)
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerNode]:
    """A node with two running pods."""
    node = DockerNode(tmp_path_factory.mktemp("node"))
    try:
        for pod_id in (ONE, TWO):
            node.running_pod(pod_id)
        yield node
    finally:
        node.clean_up()


def test_a_pod_does_not_reach_another_pod(node: DockerNode) -> None:
    """The IDE of a neighbour on the same node does not answer, by its own address or through the node."""
    address = _address(node, TWO)
    assert _reach(node, ONE, address, 8080).startswith("nothing")
    port = node.container(TWO).host_port
    assert port is not None
    assert _reach(node, ONE, _gateway(node, ONE), port).startswith("nothing")


def test_a_pod_does_not_reach_its_node(node: DockerNode) -> None:
    """A service on the node, where the control plane may be, is out of reach at every address of the node."""
    with _listening() as port:
        for address in {_gateway(node, ONE), _host_address()}:
            assert _reach(node, ONE, address, port).startswith("nothing")


def test_a_pod_does_not_reach_the_metadata_address(node: DockerNode) -> None:
    """Even where the metadata address is served, a pod gets no answer from it."""
    subprocess.run(["ip", "address", "add", f"{METADATA}/32", "dev", "lo"], check=True)
    try:
        with _listening() as port:
            assert _reach_from_node(METADATA, port)
            assert _reach(node, ONE, METADATA, port).startswith("nothing")
    finally:
        subprocess.run(["ip", "address", "del", f"{METADATA}/32", "dev", "lo"], check=True)


def test_what_is_let_through_to_the_network_is_not_dropped(node: DockerNode) -> None:
    """A machine beyond the node answers a pod, unless its network is blocked in the settings."""
    with _neighbour_host() as address:
        assert _reach(node, ONE, address, 80) == "refused"


def test_applying_the_rules_again_changes_nothing(node: DockerNode) -> None:
    """The firewall is made sure of before every start, so it must not grow."""
    before = _rules(node)
    assert before
    node.restart()
    node.parts.firewall.ensure()
    assert _rules(node) == before


def _rules(node: DockerNode) -> list[str]:
    """Those of this node: other tests have nodes of their own on the machine meanwhile."""
    listed = subprocess.run(["iptables-save", "-t", "filter"], capture_output=True, text=True, check=True)
    lines = (line for line in listed.stdout.splitlines() if not line.startswith(":"))
    return [line for line in lines if f"CODEPODS-{short_name(node.node_id)}" in line]


def _reach(node: DockerNode, pod_id: str, address: str, port: int) -> str:
    return node.run(pod_id, f"python3 -c '{CONNECT}' {address} {port}").strip()


def _reach_from_node(address: str, port: int) -> bool:
    with socket.create_connection((address, port), timeout=20):
        return True


def _address(node: DockerNode, pod_id: str) -> str:
    return node.run(pod_id, "hostname -i").split()[0]


def _gateway(node: DockerNode, pod_id: str) -> str:
    return _address(node, pod_id).rpartition(".")[0] + ".1"


def _host_address() -> str:
    words = subprocess.check_output(["hostname", "-I"], text=True).split()
    return next(word for word in words if "." in word)


@contextmanager
def _listening() -> Iterator[int]:
    """Something that answers on every address of the node."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        thread = threading.Thread(target=_accept_all, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept_all(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


@contextmanager
def _neighbour_host() -> Iterator[str]:
    """Another host on the wire: a network namespace behind a cable of our own."""
    commands = [
        "ip netns add cpods-peer",
        "ip link add cpods-wire type veth peer name eth0 netns cpods-peer",
        "ip address add 198.51.100.1/30 dev cpods-wire",
        "ip link set cpods-wire up",
        "ip -n cpods-peer address add 198.51.100.2/30 dev eth0",
        "ip -n cpods-peer link set eth0 up",
        "ip -n cpods-peer route add default via 198.51.100.1",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield "198.51.100.2"
    finally:
        subprocess.run(["ip", "netns", "del", "cpods-peer"], check=False)
        subprocess.run(["ip", "link", "del", "cpods-wire"], check=False, capture_output=True)
