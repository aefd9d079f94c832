"""The pod image, as a container of the real engine: who runs in it, who gets in, and how it ends."""

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from compose.layout import CHECKOUT, find_home

RECIPE = CHECKOUT / "pod_image" / "code_server"
START_TIMEOUT_S = 60
STOP_GRACE_S = 30
COMMAND_TIMEOUT_S = 90
EXIT_CONFIGURATION = 78
HELLO_LAB = CHECKOUT / "pod_image" / "labs" / "hello"


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `docker …`; what it printed."""
    command = ("docker", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=check)


@dataclass(frozen=True, slots=True)
class Pod:
    """A container of the image, and the secret that it was started with."""

    container: str
    secret: str
    url: str

    def sh(self, script: str, user: str = "coder") -> str:
        """What a shell in the pod prints. Raises when the script fails."""
        return docker("exec", "--user", user, self.container, "sh", "-c", script).stdout.strip()

    def get(self, path: str, **cookies: str) -> httpx.Response:
        """One request, on a connection of its own, redirects not followed."""
        header = {"Cookie": "; ".join(f"{name.replace('_', '-')}={value}" for name, value in cookies.items())}
        return httpx.get(self.url + path, headers=header if cookies else None, timeout=START_TIMEOUT_S)


@pytest.fixture(scope="module")
def image() -> str:
    """The tag that `compose/install.sh` recorded."""
    record = find_home() / "pod_image"
    if not record.exists():
        pytest.fail(
            f"{record} is not there: the pod image was not built. Run `make test`, or compose/install.sh."
        )
    tag = record.read_text().splitlines()[0]
    if docker("image", "inspect", tag, check=False).returncode != 0:
        pytest.fail(
            f"Docker has no image {tag}, which {record} names. Run `make test`, or compose/install.sh."
        )
    return tag


def started(image: str, directory: Path, secret: str) -> Pod:
    """A pod that was told its secret as the agent tells it: by a read-only mount."""
    directory.chmod(0o755)
    (directory / "session").write_text(secret + "\n")
    mount = f"{directory}:/run/codepods:ro"
    container = docker("run", "--detach", "--volume", mount, "--volume", "/workspaces", image).stdout.strip()
    network = json.loads(docker("inspect", container).stdout)[0]["NetworkSettings"]
    return Pod(container, secret, f"http://{network['IPAddress']}:8080")


def wait_until_ready(pod: Pod) -> None:
    """Until the editor's page is served to who holds the secret: /healthz would answer before that."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if pod.get("/?folder=/workspaces", code_server_session=pod.secret).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"no answer in {START_TIMEOUT_S} s: {docker('logs', pod.container).stdout}")


@pytest.fixture(scope="module")
def pod(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod that is ready."""
    running = started(image, tmp_path_factory.mktemp("session"), secrets.token_hex(32))
    try:
        wait_until_ready(running)
        yield running
    finally:
        docker("rm", "--force", "--volumes", running.container)


def refused(image: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A container that is expected to end at once, with what it said."""
    return docker("run", "--rm", *arguments, image, check=False)


def test_the_holder_of_the_secret_is_in(pod: Pod) -> None:
    """The secret as session cookie opens the editor on /workspaces; no login page is involved."""
    root = pod.get("/", code_server_session=pod.secret)

    assert root.status_code == httpx.codes.FOUND
    assert root.headers["location"].endswith("?folder=/workspaces")
    assert "vscode" in pod.get("/?folder=/workspaces", code_server_session=pod.secret).text.lower()


@pytest.mark.parametrize("cookies", [{}, {"code_server_session": "0" * 64}, {"code_server_session": ""}])
def test_nobody_else_is(pod: Pod, cookies: dict[str, str]) -> None:
    """Without the cookie, or with another value, there is only the login page."""
    answer = pod.get("/", **cookies)

    assert answer.status_code == httpx.codes.FOUND
    assert "/login" in answer.headers["location"]


def test_the_secret_is_no_password(pod: Pod) -> None:
    """The login form takes a text whose digest is the secret, which nobody knows: the secret itself fails."""
    answer = httpx.post(f"{pod.url}/login", data={"password": pod.secret}, timeout=START_TIMEOUT_S)

    assert "set-cookie" not in answer.headers
    assert answer.status_code != httpx.codes.FOUND


def test_the_environment_is_the_fallback(image: str) -> None:
    """The image runs by hand with HASHED_PASSWORD; without a mounted file that is the secret."""
    secret = secrets.token_hex(32)
    container = docker("run", "--detach", "--env", f"HASHED_PASSWORD={secret}", image).stdout.strip()
    try:
        address = json.loads(docker("inspect", container).stdout)[0]["NetworkSettings"]["IPAddress"]
        wait_until_ready(Pod(container, secret, f"http://{address}:8080"))
        assert secret not in docker("logs", container).stdout
    finally:
        docker("rm", "--force", "--volumes", container)


@pytest.mark.parametrize(
    "secret", ["", "a" * 63, "a" * 65, "g" * 64, "$argon2id$" + "a" * 54, "a" * 64 + "\nb"]
)
def test_a_bad_secret_in_the_file_is_refused(image: str, tmp_path: Path, secret: str) -> None:
    """What is not 64 hexadecimal characters does not start, also when the environment holds a good one."""
    tmp_path.chmod(0o755)
    (tmp_path / "session").write_text(secret)

    ended = refused(image, "--volume", f"{tmp_path}:/run/codepods:ro", "--env", "HASHED_PASSWORD=" + "a" * 64)

    assert ended.returncode == EXIT_CONFIGURATION
    assert "/run/codepods/session" in ended.stderr
    assert not secret or secret not in ended.stderr


@pytest.mark.parametrize(
    "environment", [(), ("--env", "HASHED_PASSWORD=letmein"), ("--env", "PASSWORD=letmein")]
)
def test_no_secret_no_start(image: str, environment: tuple[str, ...]) -> None:
    """With neither file nor good environment it says what to do; a plain PASSWORD is not taken."""
    ended = refused(image, *environment)

    assert ended.returncode == EXIT_CONFIGURATION
    assert "64 random hexadecimal characters" in ended.stderr
    assert "letmein" not in ended.stderr


def test_the_user_is_coder_with_sudo(pod: Pod) -> None:
    """uid and gid 1000 are in every archive; sudo asks for no password; home and workspace are the user's."""
    assert pod.sh("id -u; id -g; id -un").split() == ["1000", "1000", "coder"]
    assert pod.sh("sudo -n id -u") == "0"
    assert pod.sh("stat -c %U:%G /home/coder /workspaces").split() == ["coder:coder", "coder:coder"]
    assert pod.sh('echo "$HOME $LANG"; locale charmap').split() == ["/home/coder", "C.UTF-8", "UTF-8"]


def test_code_server_is_process_1_and_calls_nobody(pod: Pod) -> None:
    """The entrypoint replaced itself, and telemetry and update checks are off in what now runs."""
    arguments = pod.sh("tr '\\0' '\\n' </proc/1/cmdline").split("\n")

    assert arguments[:2] == ["/opt/code-server/lib/node", "/opt/code-server/out/node/entry.js"]
    assert {"--disable-telemetry", "--disable-update-check"} <= set(arguments)
    assert arguments[arguments.index("--bind-addr") + 1] == "0.0.0.0:8080"


def test_telemetry_is_off_in_the_editor_too(pod: Pod) -> None:
    """The settings that the editor reads, in case an extension asks them."""
    settings = json.loads(pod.sh("cat ~/.local/share/code-server/User/settings.json"))

    assert settings["telemetry.telemetryLevel"] == "off"
    assert settings["update.mode"] == "none"
    assert settings["security.workspace.trust.enabled"] is False


def test_versions_are_the_pinned_ones(pod: Pod, image: str) -> None:
    """What runs is what the recipe pins, and the image's labels say so."""
    code_server, _digest = (RECIPE / "version").read_text().split()
    labels = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]["Labels"]

    assert pod.sh("code-server --version").split()[0] == code_server == labels["codepods.code_server"]
    assert pod.sh("/opt/code-server/lib/node --version") == f"v{labels['codepods.nodejs']}"
    assert f"=={labels['codepods.nodejs']} " in (RECIPE / "node.lock").read_text()
    assert labels["codepods.image"] == "pod"
    assert "VERSION_CODENAME=bookworm" in pod.sh("cat /etc/os-release")


@pytest.mark.parametrize("tool", ["git", "curl", "python3", "make", "gcc", "nano", "ps", "sudo"])
def test_tools_are_there(pod: Pod, tool: str) -> None:
    """What a first lab needs, without installing anything."""
    assert pod.sh(f"command -v {tool}")


def test_a_terminal_can_be_opened(pod: Pod) -> None:
    """The terminal's native module was built for this image's C library."""
    script = (
        'require("/opt/code-server/lib/vscode/node_modules/node-pty")'
        '.spawn("/usr/bin/id", ["-un"], {}).onData(data => process.stdout.write(data))'
    )

    assert pod.sh(f"/opt/code-server/lib/node -e '{script}'") == "coder"


def test_the_sample_lab_builds_and_is_then_up_to_date(pod: Pod) -> None:
    """`make` builds the C program, and a second `make` has nothing to do: the sign that times were kept."""
    docker("cp", f"{HELLO_LAB}/.", f"{pod.container}:/workspaces/hello")
    pod.sh("chown -R coder:coder /workspaces/hello", user="root")

    assert pod.sh("cd /workspaces/hello && python3 hello.py Ada && make >/dev/null && build/hello Ada").split(
        "\n"
    ) == [
        "Hello, Ada!",
        "Hello, Ada!",
    ]
    assert pod.sh("cd /workspaces/hello && make --question && echo current") == "current"


def test_sigterm_ends_it_well_and_it_starts_again(image: str, tmp_path: Path) -> None:
    """Docker's stop gets through to code-server, which exits 0; a start afterwards takes the new secret."""
    first = started(image, tmp_path, secrets.token_hex(32))
    try:
        wait_until_ready(first)
        docker("stop", "--time", str(STOP_GRACE_S), first.container)
        assert json.loads(docker("inspect", first.container).stdout)[0]["State"]["ExitCode"] == 0

        (tmp_path / "session").write_text(secrets.token_hex(32))
        docker("start", first.container)
        network = json.loads(docker("inspect", first.container).stdout)[0]["NetworkSettings"]
        again = Pod(
            first.container, (tmp_path / "session").read_text(), f"http://{network['IPAddress']}:8080"
        )
        wait_until_ready(again)
        assert "/login" in again.get("/", code_server_session=first.secret).headers["location"]
    finally:
        docker("rm", "--force", "--volumes", first.container)
