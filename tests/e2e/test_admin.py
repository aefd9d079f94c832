"""Plain SQL is a supported interface: it converges like the API, and refuses what would break things."""

import time

import pytest

from tests.support.local_installation import LocalInstallation

CONVERGE_TIMEOUT_S = 60


def _status(installation: LocalInstallation, pod: str) -> str:
    return installation.psql(f"SELECT actual FROM pod_status WHERE id = '{pod}'").stdout.strip()


def _wait_for(installation: LocalInstallation, pod: str, actual: str) -> None:
    deadline = time.monotonic() + CONVERGE_TIMEOUT_S
    while _status(installation, pod) != actual:
        assert time.monotonic() < deadline, f"{pod} is {_status(installation, pod)}, not {actual}"
        time.sleep(0.1)


def test_an_update_in_psql_converges(installation: LocalInstallation) -> None:
    """`UPDATE pod SET desired_state` archives and wakes a pod like the API call, and leaves an event."""
    pod = installation.open("sql")["pod_id"]

    installation.psql(f"UPDATE pod SET desired_state = 'archived' WHERE id = '{pod}'")
    _wait_for(installation, pod, "archived")
    assert installation.containers(pod) == []
    installation.psql(f"UPDATE pod SET desired_state = 'running' WHERE id = '{pod}'")
    _wait_for(installation, pod, "running")

    wishes = installation.psql(
        f"SELECT to_value, actor FROM event WHERE pod_id = '{pod}' AND kind = 'desired'"
        " ORDER BY id DESC LIMIT 2"
    ).stdout.split()
    assert [line.split("|")[0] for line in wishes] == ["running", "archived"]
    assert all("admin" in line.split("|")[1] for line in wishes)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("desired_state = 'hibernating'", "running"),
        ("desired_state = NULL", "desired_state"),
        ("epoch = 7", "epoch"),
        ("satisfied_generation = 99", "belongs to the system"),
        ("generation = 99", "belongs to the system"),
        ("image_id = 'sha256:other'", "belongs to the system"),
    ],
)
def test_the_database_refuses_and_says_why(
    installation: LocalInstallation, assignment: str, says: str
) -> None:
    """Illegal values, NULL and other programs' columns are refused; the row stays as it was."""
    pod = installation.open("sql")["pod_id"]
    before = installation.psql(f"SELECT desired_state, generation FROM pod WHERE id = '{pod}'").stdout

    refused = installation.psql(f"UPDATE pod SET {assignment} WHERE id = '{pod}'", check=False)

    assert refused.returncode != 0
    assert says in refused.stderr
    assert installation.psql(f"SELECT desired_state, generation FROM pod WHERE id = '{pod}'").stdout == before
