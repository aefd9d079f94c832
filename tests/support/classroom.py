"""An installation with both shapes of address, and a browser in a network of its own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from tests.support.browser import CHROMIUM, chromium
from tests.support.course_page import COURSE_HOST
from tests.support.learners_network import LearnersNetwork, learners_network
from tests.support.local_installation import LocalInstallation, in_pod, local_installation

DOMAIN = "pods.test"


@dataclass
class Classroom:
    """An installation with both shapes of address, and a browser in a network of its own."""

    installation: LocalInstallation
    network: LearnersNetwork
    browser: Browser
    executable: str
    flags: tuple[str, ...]
    links: list[str] = field(default_factory=list)

    @property
    def port(self) -> str:
        """Of nginx."""
        return self.installation.environment["CODEPODS_HTTPS_PORT"]

    def base(self, pod: str, shape: str) -> str:
        """Where the pod's pages begin."""
        if shape == "path":
            return f"https://{DOMAIN}:{self.port}/pods/{pod}/"
        return f"https://{pod}.{DOMAIN}:{self.port}/"

    def open(self, user: str, shape: str) -> tuple[str, str]:
        """A running pod of this user, and a fresh link to it of this shape."""
        opened = self.installation.open(user)
        pod, link = opened["pod_id"], opened["url"]
        self.links.append(link)
        return pod, link.replace(self.base(pod, "subdomain"), self.base(pod, shape))

    def open_by_form(self, user: str, shape: str) -> tuple[str, dict[str, Any]]:
        """The same with a form for a page to post."""
        opened = self.installation.open(user)
        pod, form = opened["pod_id"], opened["post"]
        self.links.append(opened["url"])
        action = form["action"].replace(self.base(pod, "subdomain"), self.base(pod, shape))
        return pod, {**form, "action": action}

    def secret_of(self, link: str) -> str:
        """What of a link nothing else is like."""
        return link.partition("tkn=")[2].partition("&")[0][-40:]

    def shell(self, pod: str, script: str) -> str:
        """What a script prints in the pod."""
        (container,) = self.installation.containers(pod)
        return in_pod(container["Id"], script)

    def wishes(self, pod: str) -> list[str]:
        """Who wanted what of the pod, oldest first."""
        told = f"FROM event WHERE pod_id = '{pod}' AND kind = 'desired' ORDER BY id"
        return self.installation.psql(f"SELECT actor || ' ' || to_value {told}").stdout.splitlines()

    @property
    def nginx(self) -> Path:
        """nginx's own directory."""
        return self.installation.home / "nginx"


@contextmanager
def classroom_up() -> Iterator[Classroom]:
    """Outside pytest's directories, which nginx's workers may not enter."""
    with tempfile.TemporaryDirectory(prefix="codepods-browser-") as directory:
        root = Path(directory)
        root.chmod(0o711)
        own = LocalInstallation(root / "home", 1).environment
        settings = {
            **{name: value for name, value in own.items() if name.startswith("CODEPODS_")},
            "CODEPODS_URL_SHAPE": "subdomain",
            "CODEPODS_BASE_URL": f"https://{DOMAIN}:{own['CODEPODS_HTTPS_PORT']}",
            "CODEPODS_PORT_SHARING": "public",
            # Pods with applications, and those of earlier tests, are not put to rest by themselves.
            "CODEPODS_CLOSED_GRACE": "3600",
        }
        with (
            local_installation(root / "home", nodes=1, **settings) as running,
            learners_network(root, CHROMIUM) as network,
        ):
            names = (f"*.{DOMAIN}", DOMAIN, COURSE_HOST)
            rules = ",".join(f"MAP {name} {network.here}" for name in names)
            flags = (f"--host-resolver-rules={rules}", "--ignore-certificate-errors")
            executable = str(network.browser)
            with chromium(executable, *flags) as browser:
                yield Classroom(running, network, browser, executable, flags)
