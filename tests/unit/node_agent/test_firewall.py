"""The firewall's text: what pods may reach. Real packets: tests/integration/test_agent_isolation.py."""

from node_agent.firewall import LINK_LOCAL, bridge_name, name_servers_of, rules_for


def test_the_rules_drop_metadata_neighbours_and_the_node_and_let_name_service_pass() -> None:
    """Order matters: answers and names first, drops after."""
    rules = rules_for("n1", ["169.254.169.253"], ["10.0.0.0/8"])
    lines = rules.restore_input().splitlines()
    onward = [line for line in lines if line.startswith(f"-A {rules.onward_chain}")]
    names = next(n for n, line in enumerate(onward) if "--dport 53" in line)
    metadata = next(n for n, line in enumerate(onward) if f"-d {LINK_LOCAL} -j DROP" in line)
    assert names < metadata
    assert any(f"-o {rules.bridge} -j DROP" in line for line in onward)
    assert any("-d 10.0.0.0/8 -j DROP" in line for line in onward)
    assert lines[-1] == "COMMIT"
    assert lines[-2] == f"-A {rules.inward_chain} -j DROP"


def test_names_are_short_enough_for_the_kernel() -> None:
    """Interfaces have 15 characters, chains 28, whatever the node is called."""
    rules = rules_for("n" * 63, [], [])
    assert len(bridge_name("n" * 63)) <= 15
    assert max(len(rules.onward_chain), len(rules.inward_chain)) <= 28
    assert bridge_name("n1") != bridge_name("n2")


def test_only_name_servers_that_pods_can_ask_are_let_through() -> None:
    """Loopback resolvers are the node's own; IPv6 ones are out of the pods' reach."""
    text = "# x\nnameserver 127.0.0.53\nnameserver 10.1.2.3\nnameserver fe80::1%eth0\nsearch a\nnameserver\n"
    assert name_servers_of(text) == ("10.1.2.3",)


def test_settings_that_are_no_networks_never_become_rules() -> None:
    """Nothing but an IPv4 network gets into the rules' text."""
    rules = rules_for("n1", ["x -j ACCEPT"], ["::/0", "10.0.0.0/8\n-A FORWARD -j ACCEPT"])
    assert (rules.name_servers, rules.blocked) == ((), ())
