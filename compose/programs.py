"""The programs of an installation as commands, in the order they are started."""

import grp
import os
import pwd
import sys
from datetime import UTC, datetime
from pathlib import Path

from api.access_files import ensure_revoked
from api.access_token import Keyring
from compose import environment as settings_of
from compose.certificates import Certificates, ensure_certificates, names_of_this_machine
from compose.environment import Environment
from compose.nginx_config import (
    HTTP2_DIRECTIVE_SINCE,
    NginxConfigError,
    NginxSettings,
    command,
    edge_command,
    find_nginx,
    prepare,
)
from compose.problems import ProblemError
from compose.runtime_directory import runtime_directory
from compose.supervisor import Program

# What distributions call the user of web servers, the most telling first.
_WORKER_USERS = ("www-data", "nginx", "http", "nobody")
# Agents let steps under way come to an end (`stop_grace_s` of theirs is 20).
AGENT_STOP_TIMEOUT_S = 30.0


def ensure_secrets(environment: Environment) -> Certificates:
    """The certificates and the key ring, made where they are missing or old."""
    layout = environment.layout
    names = names_of_this_machine(environment.public_host)
    certificates = ensure_certificates(layout.tls, names, datetime.now(UTC))
    worker_user = nginx_worker_user()
    group = grp.getgrgid(pwd.getpwnam(worker_user).pw_gid).gr_name if worker_user else None
    if not layout.keyring.exists():
        Keyring.new().save(layout.keyring, group)
    ensure_revoked(layout.keyring)
    return certificates


def nginx_worker_user() -> str | None:
    """Whom nginx's workers become, when its master is root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in _WORKER_USERS if name in known), None)


def control_plane(environment: Environment, database_url: str) -> list[Program]:
    """The reconciler, with the gateway in it, and the API."""
    return [
        _python(
            environment,
            "reconciler",
            "reconciler.main",
            settings_of.for_reconciler(environment, database_url),
        ),
        _python(environment, "api", "api.main", settings_of.for_api(environment, database_url)),
    ]


def node_agents(environment: Environment) -> list[Program]:
    """One agent for each node that runs."""
    return [
        _python(
            environment,
            node.id,
            "node_agent.main",
            settings_of.for_node(environment, node),
            stop_timeout_s=AGENT_STOP_TIMEOUT_S,
        )
        for node in environment.installation.running
    ]


def front_door(environment: Environment, certificates: Certificates) -> list[Program]:
    """nginx, with its configuration written, and what looks after its sockets. Raises `ProblemError`."""
    layout = environment.layout
    front = environment.front
    try:
        install = find_nginx()
        settings = NginxSettings(
            prefix=layout.nginx,
            runtime=runtime_directory(layout.home),
            module=install.module,
            keyring=layout.keyring,
            ports_directory=layout.ports,
            certificate=front.certificate or certificates.certificate,
            certificate_key=front.key or certificates.key,
            public_host=environment.public_host,
            https_port=environment.ports.https,
            http_port=environment.ports.http,
            public_port=environment.public_port,
            api_upstream=f"127.0.0.1:{environment.ports.api}",
            upstream_networks=("127.0.0.1/32",),
            pod_domain=environment.public_host if front.subdomains else None,
            listen_addresses=(environment.listen_address,),
            trusted_peers=front.trusted_peers,
            proxy_protocol=front.proxy_protocol,
            tls=front.tls,
            hsts=front.hsts,
            hints_address=f"127.0.0.1:{environment.ports.hints}",
            worker_user=nginx_worker_user(),
            http2_directive=install.version >= HTTP2_DIRECTIVE_SINCE,
            perl_module=install.perl_module,
        )
        prepare(settings)
    except NginxConfigError as error:
        raise ProblemError(str(error)) from error
    own = dict(environment.inherited)
    nginx = _program(environment, "nginx", tuple(command(install, settings)), own)
    return [nginx, _program(environment, "edge", edge_command(settings), own)]


def _python(
    environment: Environment, name: str, module: str, environ: dict[str, str], stop_timeout_s: float = 15.0
) -> Program:
    return _program(environment, name, (sys.executable, "-m", module), environ, stop_timeout_s)


def _program(
    environment: Environment,
    name: str,
    argv: tuple[str, ...],
    environ: dict[str, str],
    stop_timeout_s: float = 15.0,
) -> Program:
    layout = environment.layout
    environ = {**environ, "PYTHONUNBUFFERED": "1"}
    return Program(
        name, argv, environ, layout.log_of(name), layout.pid_of(name), stop_timeout_s=stop_timeout_s
    )


def log_directories(environment: Environment) -> tuple[Path, ...]:
    """Where logs grow."""
    return environment.layout.log, environment.layout.nginx / "logs"
