"""Rows that tests of the database start from, written as the programs would."""

from state.database import Connection

WORKSPACE = "w-aaaaaaaaaaaa"
POD = "p-aaaaaaaaaaaa"
NODE = "node-1"


def numbered_pod(number: int) -> str:
    """The id of one of many pods."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return "p-bbbbbbbbb" + letters[number // 676] + letters[number // 26 % 26] + letters[number % 26]


def add_workspace(connection: Connection) -> None:
    """Alice's workspace."""
    connection.execute("INSERT INTO workspace (id, user_id) VALUES (%s, 'alice')", (WORKSPACE,))


def add_pod(connection: Connection, pod_id: str = POD, name: str = "main", desired: str = "running") -> None:
    """A pod in Alice's workspace."""
    connection.execute(
        "INSERT INTO pod (id, workspace_id, user_id, name, image, desired_state)"
        " VALUES (%s, %s, 'alice', %s, 'codepods/pod', %s)",
        (pod_id, WORKSPACE, name, desired),
    )


def add_node(connection: Connection, node_id: str = NODE, seen_s_ago: float = 0) -> None:
    """A node, last heard so many seconds ago."""
    connection.execute("INSERT INTO node (id, token_hash) VALUES (%s, 'no token hashes to this')", (node_id,))
    connection.execute(
        "INSERT INTO node_lease (node_id, boot_id, sequence, last_seen_at)"
        " VALUES (%s, 'boot-1', 1, now() - make_interval(secs => %s))",
        (node_id, seen_s_ago),
    )


def place(connection: Connection, epoch: int = 1, node_id: str = NODE) -> None:
    """Alice's workspace on a node."""
    connection.execute("UPDATE workspace SET epoch = %s WHERE id = %s", (epoch, WORKSPACE))
    connection.execute(
        "INSERT INTO placement (workspace_id, epoch, node_id) VALUES (%s, %s, %s)",
        (WORKSPACE, epoch, node_id),
    )


def observe(connection: Connection, state: str, epoch: int = 1, node_id: str = NODE) -> None:
    """What the node reported of the pod."""
    connection.execute(
        "INSERT INTO pod_observed (pod_id, node_id, epoch, generation, state, upstream, session_secret,"
        " boot_id, sequence) VALUES (%s, %s, %s, 1, %s, '127.0.0.1:4000', %s, 'boot-1', 1)",
        (POD, node_id, epoch, state, "5e55" * 16),
    )


def add_action(connection: Connection, verb: str = "start_pod") -> None:
    """An open action for the pod."""
    connection.execute(
        "INSERT INTO action (id, target, target_kind, verb, workspace_id, pod_id, node_id, epoch, generation,"
        " attempt, step) VALUES (gen_random_uuid(), %s, 'pod', %s, %s, %s, %s, 1, 1, 1, '{}')",
        (POD, verb, WORKSPACE, POD, NODE),
    )


def add_archive(connection: Connection, number: int = 1) -> str:
    """A committed archive of the pod, which the pod then names; its id."""
    archive_id = "a-aaaaaaaaaaa" + "abcdefgh"[number]
    connection.execute(
        "INSERT INTO archive (id, target_kind, target_id, number, epoch, attempt, node_id, manifest_key,"
        " manifest_digest, fingerprint, size_bytes) VALUES (%s, 'pod', %s, %s, 1, 1, %s, %s, 'd', 'f', 10)",
        (archive_id, POD, number, NODE, f"pods/{POD}/{number}"),
    )
    connection.execute("UPDATE pod SET archive_id = %s WHERE id = %s", (archive_id, POD))
    return archive_id
