"""podctl, as a program, against a real API: exit codes, one JSON value, waiting, finding the installation."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from state import pods
from state.model import Desired, Observed
from tests.support.api_server import ApiServer
from tests.support.node_hand import NodeHand

TIMEOUT_S = 60
COMMAND = (sys.executable, "-m", "api.podctl.main")
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON value it has to be."""
        return json.loads(self.out)


def begin(environ: dict[str, str], *args: str) -> "subprocess.Popen[str]":
    """Start podctl with nothing of the tests' own environment that could name an installation."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CODEPODS_")}
    return subprocess.Popen(
        [*COMMAND, *args],
        env=clean | {"COLUMNS": "200", "NO_COLOR": "1"} | environ,
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: "subprocess.Popen[str]") -> Ran:
    """Wait for its end."""
    out, err = process.communicate(timeout=TIMEOUT_S)
    return Ran(process.returncode, out, err)


class Podctl:
    """podctl with a token for one API."""

    def __init__(self, api: ApiServer, scope: str = "admin") -> None:
        self.environ = {"CODEPODS_URL": api.url, "CODEPODS_TOKEN": api.tokens[scope]}

    def __call__(self, *args: str) -> Ran:
        """Run a command."""
        return end(begin(self.environ, *args))


@pytest.fixture
def podctl(api: ApiServer) -> Podctl:
    """podctl of an admin."""
    return Podctl(api)


@pytest.fixture
def waiting_open(
    podctl: Podctl, request: pytest.FixtureRequest
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`podctl open --wait --json` under way, with its pod's id."""
    user = request.node.name[:100]
    pod_id = podctl("open", "--user", user, "--lab", "hello", "--json").json["pod_id"]
    process = begin(podctl.environ, "open", "--user", user, "--lab", "hello", "--wait", "--json")
    yield process, pod_id
    process.kill()
    process.wait()


def test_open_waits_for_the_link(waiting_open: tuple["subprocess.Popen[str]", str], node: NodeHand) -> None:
    """`open --wait --json` ends with pod_id, state and url; progress goes to standard error."""
    process, pod_id = waiting_open
    assert process.stderr is not None
    first_line = process.stderr.readline()
    node.place(pod_id)
    node.report(pod_id, Observed.STARTING)
    node.report(pod_id, Observed.RUNNING)
    ran = end(process)

    assert ran.code == 0
    assert (pod_id, "running") == (ran.json["pod_id"], ran.json["state"])
    assert ran.json["url"].startswith(f"https://localhost:8443/pods/{pod_id}/?tkn=v1.")
    assert pod_id in first_line


def test_waiting_ends_with_the_reason_of_a_parked_pod(
    waiting_open: tuple["subprocess.Popen[str]", str], node: NodeHand
) -> None:
    """A failure that nobody will try again ends the waiting with its reason and exit code 1."""
    process, pod_id = waiting_open
    assert process.stderr is not None
    process.stderr.readline()  # it has asked, and waits
    node.fail(pod_id, permanent=True)
    ran = end(process)

    assert (ran.code, ran.json["code"]) == (1, "no_such_image")
    assert "no image named nowhere/none" in ran.err


def test_waiting_ends_with_the_reason_of_a_failing_pod(
    waiting_open: tuple["subprocess.Popen[str]", str], node: NodeHand
) -> None:
    """Nor is a pod waited for that fails again and again."""
    process, pod_id = waiting_open
    assert process.stderr is not None
    process.stderr.readline()  # it has asked, and waits
    node.fail(pod_id, permanent=False, count=5)

    assert end(process).code == 1


def test_waiting_ends_when_somebody_wants_otherwise(
    waiting_open: tuple["subprocess.Popen[str]", str], api: ApiServer
) -> None:
    """Whoever waits for a link learns that the pod is wanted stopped now."""
    process, pod_id = waiting_open
    assert process.stderr is not None
    process.stderr.readline()
    pods.set_desired(api.db, pod_id, Desired.STOPPED, actor="test", reason=None)
    ran = end(process)

    assert (ran.code, ran.json["code"]) == (1, "changed_meanwhile")


def test_waiting_ends_with_its_time(podctl: Podctl) -> None:
    """`--timeout` bounds the waiting; the reason says how the pod is."""
    ran = podctl("open", "--user", "late", "--wait", "--timeout", "0.2", "--json")

    assert (ran.code, ran.json["code"]) == (1, "timeout")
    assert "not running, after 0.2 s" in ran.err


def test_the_life_of_a_pod(podctl: Podctl, node: NodeHand) -> None:
    """open, stop, archive, start, delete: each by USER/NAME, each with one JSON value."""
    pod_id = podctl("open", "--user", "alice", "--name", "life", "--json").json["pod_id"]

    for command, wanted in (("stop", "stopped"), ("archive", "archived"), ("start", "running")):
        ran = podctl(command, "alice/life", "--reason", "because", "--json")
        assert (0, wanted, pod_id) == (ran.code, ran.json["desired"], ran.json["pod_id"])
    deleted = podctl("delete", "alice/life", "--json")
    again = podctl("get", "alice/life", "--json")

    assert (deleted.code, deleted.json["desired"]) == (0, "deleted")
    assert (again.code, again.json["code"]) == (1, "pod_not_found")


def test_stop_waits_until_it_has_stopped(podctl: Podctl, node: NodeHand) -> None:
    """`stop --wait` ends when the node has reported it."""
    pod_id = podctl("open", "--user", "walt", "--json").json["pod_id"]
    node.place(pod_id)
    node.report(pod_id, Observed.RUNNING)
    process = begin(podctl.environ, "stop", pod_id, "--wait", "--json")
    assert process.stderr is not None
    process.stderr.readline()
    node.report(pod_id, Observed.STOPPED)
    ran = end(process)

    assert (ran.code, ran.json["state"]) == (0, "stopped")


def test_looking_prints_one_json_value(podctl: Podctl, node: NodeHand) -> None:
    """Every looking command prints one JSON value with --json, and text for people without."""
    pod_id = podctl("open", "--user", "looker", "--json").json["pod_id"]
    node.fail(pod_id, permanent=True)
    commands: tuple[tuple[tuple[str, ...], type], ...] = (
        (("list", "--user", "looker"), list),
        (("get", pod_id), dict),
        (("explain", "looker/default"), dict),
        (("events", pod_id), list),
        (("events", "--user", "looker"), list),
        (("nodes",), list),
    )

    for command, kind in commands:
        shown, told = podctl(*command, "--json"), podctl(*command)
        assert (shown.code, told.code) == (0, 0), shown.err + told.err
        assert isinstance(shown.json, kind)
        assert shown.json
        assert told.out.strip()
    assert "no image named" in podctl("explain", pod_id).out


def test_an_operator_gives_a_platform_its_token_and_takes_it_back(podctl: Podctl, api: ApiServer) -> None:
    """`token create` prints the token alone, this once; after `token revoke` it opens nothing."""
    made = podctl("token", "create", "revpro", "--scope", "revpro")
    platform = Podctl(api)
    platform.environ["CODEPODS_TOKEN"] = made.out.strip()
    assert platform("open", "--user", "learner").code == 0

    listed = podctl("token", "list", "--json")
    (token,) = [one for one in listed.json if one["name"] == "revpro"]
    assert made.out.strip() not in listed.out
    revoked = podctl("token", "revoke", token["token_id"])
    refused = platform("open", "--user", "learner", "--json")

    assert (revoked.code, token["scope"]) == (0, "revpro")
    assert (refused.code, refused.json["code"]) == (1, "token_refused")
    assert podctl("token", "revoke", "t-aaaaaaaaaaaa", "--json").json["code"] == "token_not_found"


def test_a_node_is_cordoned_and_uncordoned(podctl: Podctl, node: NodeHand) -> None:
    """Each leaves an event with who did it; `nodes` goes on listing."""
    cordoned = podctl("nodes", "cordon", node.node_id, "--json")
    again = podctl("nodes", "cordon", node.node_id)
    back = podctl("nodes", "uncordon", node.node_id, "--json")
    events = podctl("events", "--node", node.node_id, "--json").json

    assert (cordoned.json["cordoned"], again.code, back.json["cordoned"]) == (True, 0, False)
    assert [(event["actor"], event["to_value"]) for event in events if event["kind"] == "cordoned"] == [
        ("api:test-admin", "true"),
        ("api:test-admin", "false"),
    ]
    assert node.node_id in podctl("nodes").out
    assert podctl("nodes", "cordon", "node-none", "--json").json["code"] == "node_not_found"


def test_without_a_command_there_is_help(podctl: Podctl) -> None:
    """`podctl` alone says what it can do."""
    ran = podctl()

    assert ran.code in (0, 2)
    assert "Usage:" in ran.out + ran.err
    assert "explain" in ran.out + ran.err


@pytest.mark.parametrize(
    "args",
    [
        ("opne",),
        ("nodes", "drain"),
        ("nodes", "cordon"),
        ("token", "create", "revpro"),
        ("token", "create", "revpro", "--scope", "root"),
        ("open",),
        ("open", "p-aaaaaaaaaaaa", "--user", "alice"),
        ("open", "alice/x", "--image", "debian:12"),
        ("get",),
        ("get", "alice"),
        ("stop", "alice/x", "--force"),
        ("list", "--limit", "0"),
        ("open", "--user", "alice", "--timeout", "soon"),
        ("events", "p-aaaaaaaaaaaa", "--user", "alice"),
    ],
)
def test_wrong_usage_is_2(podctl: Podctl, args: tuple[str, ...]) -> None:
    """A command that is written wrongly ends with 2, says how on standard error, and does nothing."""
    ran = podctl(*args)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("open", "--user", "../root"), "invalid_field"),
        (("open", "--user", "alice", "--image", "--privileged"), "invalid_field"),
        (("get", "p-aaaaaaaaaaaa"), "pod_not_found"),
        (("stop", "nobody/nothing"), "pod_not_found"),
        (("explain", "p-aaaaaaaaaaaa"), "pod_not_found"),
    ],
)
def test_refusals_are_1_with_the_reason(podctl: Podctl, args: tuple[str, ...], code: str) -> None:
    """What the API refuses ends with 1, the reason on standard error and the code in the JSON value."""
    ran = podctl(*args, "--json")

    assert (1, code) == (ran.code, ran.json["code"])
    assert ran.err.strip()


def test_a_scope_that_is_too_small_is_told(api: ApiServer) -> None:
    """A token that may only look cannot open."""
    ran = Podctl(api, "read")("open", "--user", "alice", "--json")

    assert (ran.code, ran.json["code"]) == (1, "scope_refused")


def test_it_finds_the_local_installation(api: ApiServer, tmp_path: Path) -> None:
    """Without CODEPODS_URL the address and token are in the installation's own file."""
    (tmp_path / "client.json").write_text(json.dumps({"url": api.url, "token": api.tokens["read"]}))
    ran = end(begin({"CODEPODS_HOME": str(tmp_path)}, "list", "--json"))

    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("environ", "code"),
    [
        ({"CODEPODS_HOME": "/nowhere"}, "not_up"),
        ({"CODEPODS_URL": "localhost:8443", "CODEPODS_TOKEN": "x"}, "url_refused"),
        ({"CODEPODS_URL": "http://127.0.0.1:9"}, "token_missing"),
        ({"CODEPODS_URL": "http://127.0.0.1:9", "CODEPODS_TOKEN": "x"}, "unreachable"),
        (
            {"CODEPODS_URL": "https://127.0.0.1:9", "CODEPODS_TOKEN": "x", "CODEPODS_CA": "/none"},
            "ca_unusable",
        ),
    ],
)
def test_without_an_installation_it_says_what_to_do(environ: dict[str, str], code: str) -> None:
    """Nothing there to talk to: one reason, one hint, exit code 1, no traceback."""
    ran = end(begin(environ, "list", "--json"))

    assert (1, code) == (ran.code, ran.json["code"])
    assert ran.json["hint"]
    assert "Traceback" not in ran.err
