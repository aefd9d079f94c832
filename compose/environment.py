"""What an installation runs with: the operator's settings, and our defaults where there are none."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from compose.front import FrontDoor, front_door_of
from compose.installation import Installation, NodeConfig
from compose.layout import CHECKOUT, Layout, write_private
from compose.ports import Ports
from compose.problems import ProblemError

HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything that is known before anything is started."""

    layout: Layout
    installation: Installation
    ports: Ports
    base_url: str
    store_url: str
    # Of pods that are created without naming one; None: none has been built.
    pod_image: str | None
    # The operator's own PostgreSQL; None: the embedded one.
    database_url: str | None
    inherited: Mapping[str, str]
    front: FrontDoor

    @property
    def api_url(self) -> str:
        """The API on the loopback, without nginx in between."""
        return f"http://127.0.0.1:{self.ports.api}"

    @property
    def gateway_url(self) -> str:
        """What nodes call."""
        return f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def listen_address(self) -> str:
        """Where nginx listens: on the loopback, until links name a host that others can reach."""
        loopback = self.public_host in ("localhost", "127.0.0.1") or self.public_host.endswith(".localhost")
        return "127.0.0.1" if loopback else "0.0.0.0"  # noqa: S104  the front door, by the operator's choice

    @property
    def public_host(self) -> str:
        """The host name in links."""
        return urlsplit(self.base_url).hostname or "localhost"

    @property
    def public_port(self) -> int:
        """The port in links: a balancer's, where one stands before nginx."""
        return urlsplit(self.base_url).port or HTTPS_PORT


def environment_of(
    layout: Layout, installation: Installation, environ: Mapping[str, str] = os.environ
) -> Environment:
    """From the settings. Raises `ProblemError` for one that cannot be."""
    ports = Ports.from_environment(environ)
    base_url = environ.get("CODEPODS_BASE_URL", "").rstrip("/") or _local_url(ports.https)
    if urlsplit(base_url).scheme != "https" or not urlsplit(base_url).hostname:
        raise ProblemError(
            f"CODEPODS_BASE_URL={base_url!r} cannot be used: give https://HOST or https://HOST:PORT."
        )
    return Environment(
        layout=layout,
        installation=installation,
        ports=ports,
        base_url=base_url,
        store_url=environ.get("CODEPODS_STORE_URL") or f"file://{layout.store}",
        pod_image=environ.get("CODEPODS_DEFAULT_IMAGE") or _built_image(layout),
        database_url=environ.get("CODEPODS_DATABASE_URL") or None,
        inherited=dict(environ),
        front=front_door_of(environ),
    )


def _built_image(layout: Layout) -> str | None:
    """Of this home, or of the checkout's own: homes of tests have none built for them."""
    for file in (layout.pod_image, Layout(CHECKOUT / ".codepods").pod_image):
        with contextlib.suppress(FileNotFoundError):
            return file.read_text().strip() or None
    return None


def save_settings(environment: Environment) -> None:
    """Remember what the operator set: later commands speak of the system that runs."""
    settings = {name: value for name, value in environment.inherited.items() if name.startswith("CODEPODS_")}
    write_private(environment.layout.settings, json.dumps(settings))


def saved_settings(layout: Layout) -> dict[str, str]:
    """What was set when it was started; nothing where that is not known."""
    try:
        return {str(name): str(value) for name, value in json.loads(layout.settings.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _local_url(port: int) -> str:
    return "https://localhost" if port == HTTPS_PORT else f"https://localhost:{port}"


def for_api(environment: Environment, database_url: str) -> dict[str, str]:
    """The API's settings."""
    return {
        **environment.inherited,
        "CODEPODS_DATABASE_URL": database_url,
        "CODEPODS_KEYRING": str(environment.layout.keyring),
        "CODEPODS_PORTS_DIRECTORY": str(environment.layout.ports),
        "CODEPODS_BASE_URL": environment.base_url,
        "CODEPODS_DEFAULT_IMAGE": environment.pod_image or "",
        "CODEPODS_API_HOST": "127.0.0.1",
        "CODEPODS_API_PORT": str(environment.ports.api),
        "CODEPODS_GATEWAY_URL": environment.gateway_url,
    }


def for_reconciler(environment: Environment, database_url: str) -> dict[str, str]:
    """The reconciler's settings: the loop, and the gateway that nodes call."""
    return {
        **environment.inherited,
        "CODEPODS_DATABASE_URL": database_url,
        "CODEPODS_GATEWAY_HOST": "127.0.0.1",
        "CODEPODS_GATEWAY_PORT": str(environment.ports.gateway),
        "CODEPODS_HINTS_PORT": str(environment.ports.hints),
    }


def for_node(environment: Environment, node: NodeConfig) -> dict[str, str]:
    """A node agent's settings. Never the database's address: nodes run strangers' code."""
    secrets_of_others = ("CODEPODS_DATABASE_URL", "CODEPODS_KEYRING")
    inherited = {
        name: value for name, value in environment.inherited.items() if name not in secrets_of_others
    }
    return {
        **inherited,
        "CODEPODS_NODE_ID": node.id,
        "CODEPODS_NODE_TOKEN": node.token,
        "CODEPODS_GATEWAY_URL": environment.gateway_url,
        "CODEPODS_DATA_DIR": str(environment.layout.node(node.id)),
        "CODEPODS_STORE_URL": environment.store_url,
        "CODEPODS_ACCEPT_UNSANDBOXED": environment.inherited.get("CODEPODS_ACCEPT_UNSANDBOXED", "1"),
    }
