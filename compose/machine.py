"""What this machine must have before anything is started, and what its owner should know."""

import json
import os
from datetime import UTC, datetime

from compose.containers import docker
from compose.environment import Environment
from compose.front import check_own_certificate
from compose.nginx_config import NginxConfigError, find_nginx
from compose.problems import ProblemError

SANDBOXED = "sysbox-runc"


def check(environment: Environment) -> None:
    """Raise `ProblemError` for what is missing: an engine, njs, a certificate, the pod image."""
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except ProblemError as error:
        what_to_do = "correct DOCKER_HOST" if os.environ.get("DOCKER_HOST") else "set DOCKER_HOST"
        raise ProblemError(f"No Docker engine answers. {error} Start it, or {what_to_do}.") from error
    try:
        find_nginx()
    except NginxConfigError as error:
        raise ProblemError(str(error)) from error
    check_own_certificate(environment.front, environment.public_host, datetime.now(UTC))
    image = environment.pod_image
    if image is None:
        raise ProblemError("No pod image has been built yet: make image")
    if not docker("image", "ls", "--quiet", image).strip():
        raise ProblemError(f"The engine has no image {image}. Build it: make image")


def notices(environment: Environment) -> list[str]:
    """What the owner of the machine should know, one line each."""
    lines = []
    runtimes = json.loads(docker("info", "--format", "{{json .Runtimes}}")) or {}
    if SANDBOXED not in runtimes and environment.inherited.get("CODEPODS_ACCEPT_UNSANDBOXED", "1") == "1":
        lines.append(
            f"The engine has no {SANDBOXED}: pods run with runc, which is not a sandbox. Accepted for one "
            "machine; for strangers' code install Sysbox, or refuse with CODEPODS_ACCEPT_UNSANDBOXED=0."
        )
    ending = check_own_certificate(environment.front, environment.public_host, datetime.now(UTC))
    lines += [ending] if ending else []
    idle = environment.installation.nodes[environment.installation.nodes_running :]
    if idle:
        lines.append(
            f"Not running now: {', '.join(node.id for node in idle)}. Pods there wait until they are."
        )
    return lines
