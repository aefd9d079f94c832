"""nginx as the front door: its configuration, from settings, in a directory of its own.

`render` is pure. `prepare` writes what nginx needs below the prefix, so that nothing of the system's own
nginx service is used or changed, and the workers read nothing else but the keyring. docs/access.md tells what
the configuration does.
"""

import ipaddress
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2

from compose.runtime_directory import claim
from state.revoked import KEPT_S, REVOKED_FILE

SOURCES = Path(__file__).resolve().parent.parent / "nginx_njs"
MODULE_NAME = "ngx_http_js_module.so"
PERL_MODULE_NAME = "ngx_http_perl_module.so"
# Where distributions put modules, if `nginx -V` does not say.
MODULE_DIRECTORIES = (
    "/usr/lib/nginx/modules",
    "/usr/share/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/etc/nginx/modules",
)
HTTP2_DIRECTIVE_SINCE = (1, 25, 1)
PORT_MAX = 65_535
# A socket's address has room for 107 bytes (unix(7)).
RUNTIME_LENGTH_MAX = 96
# Half of the 10 s within which a revocation has to count.
GATE_KEPT_S_MAX = 5
POD_PATTERN = "[a-z0-9][a-z0-9-]{0,62}"
PORT_PATTERN = "[1-9][0-9]{0,4}"

# https://ssl-config.mozilla.org, intermediate, as of guideline 5.7; its DHE ciphers left out: they need a
# parameter file, and each client that knows them knows an ECDHE one.
TLS_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)

# Headers by which a client could speak for a proxy; the ones that nginx sets itself are in the template.
FORGED_HEADERS = (
    "Forwarded",
    "Proxy",
    "True-Client-IP",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Scheme",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-User",
    "X-HTTP-Method-Override",
    "X-Original-Host",
    "X-Original-URL",
    "X-Rewrite-URL",
)

# How nginx frames a hint: RFC 3164 without the host name, so `<190>Nov 21 11:20:00 codepods: {…}`.
HINTS_FORM = "facility=local7,tag=codepods,severity=info,nohostname"

_SAFE_PATH = re.compile(r"/[A-Za-z0-9_./@+-]*")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LISTEN_ADDRESS = re.compile(r"\*|[0-9.]+|\[[0-9a-f:]+\]")
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]*")


class NginxConfigError(Exception):
    """nginx cannot be configured or started this way. The message says what to do."""


@dataclass(frozen=True, slots=True)
class NginxInstall:
    """The nginx on this machine."""

    binary: str
    module: Path
    version: tuple[int, ...]
    # With it the gate's yes is kept in the workers' memory, without it by proxy_cache: docs/decisions/0024.
    perl_module: Path | None = None

    @property
    def http2_directive(self) -> bool:
        """Whether HTTP/2 has a directive of its own; newer versions warn of the older `listen ... http2`."""
        return self.version >= HTTP2_DIRECTIVE_SINCE


@dataclass(frozen=True, slots=True)
class NginxSettings:
    """All that the configuration depends on. Raises `NginxConfigError` for values nginx could misread.

    `prefix` is nginx's own directory, `runtime` one in memory (`compose.runtime_directory`). Pods are reached
    below `https://public_host/pods/` if `path_shape`, and as `https://<pod>.<pod_domain>/` if `pod_domain` is
    given. Upstreams outside `upstream_networks` (CIDR) or `upstream_ports` (first, last) are refused whatever
    a token says. `worker_user`: when root starts it.
    """

    prefix: Path
    runtime: Path
    module: Path
    # The file of revocations lies beside it.
    keyring: Path
    certificate: Path
    certificate_key: Path
    public_host: str
    https_port: int
    api_upstream: str
    upstream_networks: tuple[str, ...]
    upstream_ports: tuple[int, int] = (1024, PORT_MAX)
    # Where the control plane tells which ports of pods are open to others; None: none is.
    ports_directory: Path | None = None
    http_port: int | None = None
    # Where plain HTTP is sent on to; None: to `https_port`.
    public_port: int | None = None
    path_shape: bool = True
    pod_domain: str | None = None
    listen_addresses: tuple[str, ...] = ("0.0.0.0",)  # noqa: S104  the front door is meant for everybody
    worker_user: str | None = None
    worker_processes: int | str = "auto"
    worker_connections: int = 16_384
    # A working day and a bit: how long a browser stays admitted by one link.
    session_lifetime_s: int = 12 * 3600
    # Balancers in front, as networks: what they say of the client's address is believed (X-Forwarded-For, or
    # the PROXY protocol, which then is asked of whoever connects). Without `tls` they do the TLS.
    trusted_peers: tuple[str, ...] = ()
    proxy_protocol: bool = False
    tls: bool = True
    # How long the gate's yes is good for: so late can a revoked key, or session, count for requests.
    gate_kept_s: int = 5
    # Only with a certificate that browsers accept: they then refuse plain HTTP to this host for two years.
    hsts: bool = False
    # host:port of a UDP listener that is told of each socket's opening and end; None: nobody is.
    hints_address: str | None = None
    http2_directive: bool = False
    # None: the gate's yes is kept by proxy_cache.
    perl_module: Path | None = None

    @property
    def revoked(self) -> Path:
        """What was revoked: `state.revoked`."""
        return self.keyring.with_name(REVOKED_FILE)

    @property
    def used(self) -> Path:
        """Which links of limited use were used."""
        return self.runtime / "used"

    def __post_init__(self) -> None:
        for name, holds in _checks(self):
            if not holds:
                raise NginxConfigError(f"nginx setting {name}: {getattr(self, name)!r} cannot be used")


def _is_port(value: int | None) -> bool:
    return value is None or 0 < value <= PORT_MAX


def _is_network(value: str) -> bool:
    try:
        return isinstance(ipaddress.ip_network(value), ipaddress.IPv4Network) and "/" in value
    except ValueError:
        return False


def _is_any_network(value: str) -> bool:
    try:
        return ipaddress.ip_network(value) is not None and "/" in value
    except ValueError:
        return False


def _is_address(value: str) -> bool:
    host, _, port = value.rpartition(":")
    return bool(_HOST_NAME.fullmatch(host)) and port.isdecimal() and _is_port(int(port))


def _checks(s: NginxSettings) -> list[tuple[str, bool]]:
    """(setting, whether it can stand in the configuration as it is)"""
    paths = ("prefix", "runtime", "module", "keyring", "certificate", "certificate_key")
    first, last = s.upstream_ports
    return [
        *((name, _SAFE_PATH.fullmatch(str(getattr(s, name))) is not None) for name in paths),
        ("perl_module", s.perl_module is None or bool(_SAFE_PATH.fullmatch(str(s.perl_module)))),
        ("runtime", len(str(s.runtime)) <= RUNTIME_LENGTH_MAX),
        ("ports_directory", s.ports_directory is None or bool(_SAFE_PATH.fullmatch(str(s.ports_directory)))),
        ("public_host", _HOST_NAME.fullmatch(s.public_host) is not None),
        ("pod_domain", s.pod_domain is None or _HOST_NAME.fullmatch(s.pod_domain) is not None),
        ("path_shape", s.path_shape or s.pod_domain is not None),
        ("https_port", _is_port(s.https_port)),
        ("http_port", _is_port(s.http_port)),
        ("public_port", _is_port(s.public_port)),
        ("api_upstream", _is_address(s.api_upstream)),
        ("hints_address", s.hints_address is None or _is_address(s.hints_address)),
        ("upstream_networks", bool(s.upstream_networks) and all(map(_is_network, s.upstream_networks))),
        ("upstream_ports", 0 < first <= last <= PORT_MAX),
        ("listen_addresses", all(_LISTEN_ADDRESS.fullmatch(a) for a in s.listen_addresses)),
        ("worker_user", s.worker_user is None or _USER_NAME.fullmatch(s.worker_user) is not None),
        ("worker_processes", s.worker_processes == "auto" or isinstance(s.worker_processes, int)),
        ("trusted_peers", all(map(_is_any_network, s.trusted_peers))),
        ("proxy_protocol", not s.proxy_protocol or bool(s.trusted_peers)),
        ("tls", s.tls or bool(s.trusted_peers)),
        ("gate_kept_s", 0 < s.gate_kept_s <= GATE_KEPT_S_MAX),
        ("session_lifetime_s", 0 < s.session_lifetime_s <= KEPT_S),
    ]


def render(settings: NginxSettings) -> str:
    """The text of nginx.conf."""
    environment = jinja2.Environment(  # noqa: S701  nginx, not HTML; `NginxSettings` lets only plain words through
        loader=jinja2.FileSystemLoader(SOURCES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("nginx.conf.template").render(
        asdict(settings),
        tls_ciphers=TLS_CIPHERS,
        forged_headers=FORGED_HEADERS,
        pod_pattern=POD_PATTERN,
        port_pattern=PORT_PATTERN,
        hints_form=HINTS_FORM,
        redirect_port=settings.public_port or settings.https_port,
        revoked=settings.revoked,
        listen_form=_listen_form(settings),
    )


def _listen_form(settings: NginxSettings) -> str:
    http2 = settings.tls and not settings.http2_directive
    words = (("ssl", settings.tls), ("http2", http2), ("proxy_protocol", settings.proxy_protocol))
    return "".join(f" {word}" for word, holds in words if holds)


def find_nginx(
    binary: str = "nginx", module_directories: tuple[str, ...] = MODULE_DIRECTORIES
) -> NginxInstall:
    """The nginx on PATH and its modules. Raises `NginxConfigError` when it is missing, or has no njs."""
    found = shutil.which(binary)
    if found is None:
        raise NginxConfigError(
            f"{binary} is not on PATH. Install it: apt-get install nginx libnginx-mod-http-js (Debian)"
        )
    told = subprocess.run([found, "-V"], check=True, capture_output=True, text=True, timeout=10).stderr
    match = re.search(r"--modules-path=(\S+)", told)
    directories = [*([match.group(1)] if match else []), *module_directories]
    module = _find_module(MODULE_NAME, directories)
    if module is None:
        raise NginxConfigError(
            f"nginx has no njs module: {MODULE_NAME} is in none of {', '.join(dict.fromkeys(directories))}. "
            "Install it: apt-get install libnginx-mod-http-js (Debian), nginx-module-njs (nginx.org)"
        )
    return NginxInstall(found, module, _version(told), _find_module(PERL_MODULE_NAME, directories))


def _version(told: str) -> tuple[int, ...]:
    match = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", told)
    return tuple(map(int, match.groups())) if match else (0, 0, 0)


def _find_module(name: str, directories: list[str]) -> Path | None:
    modules = (Path(directory) / name for directory in directories)
    return next((module for module in modules if module.exists()), None)


def prepare(settings: NginxSettings) -> Path:
    """Write the configuration, the njs files and the pages below the prefix; the path of nginx.conf.

    Raises `NginxConfigError` when the workers could not read them.
    """
    prefix = settings.prefix
    for directory in ("logs", "tmp", "njs", "pages"):
        (prefix / directory).mkdir(parents=True, exist_ok=True)
    for read_by_workers in ("njs", "pages"):
        (prefix / read_by_workers).chmod(0o755)
    for source in (*SOURCES.glob("*.js"), SOURCES / "kept.pm"):
        _copy(source, prefix / "njs" / source.name)
    for source in (SOURCES / "pages").iterdir():
        _copy(source, prefix / "pages" / source.name)
    claim(settings.runtime, settings.worker_user)
    _make_used(settings)
    if settings.worker_user is not None:
        _check_reachable(prefix, settings.worker_user)
        _check_reachable(settings.keyring.parent, settings.worker_user)
    config = prefix / "nginx.conf"
    _replace(config, render(settings).encode())
    return config


def _make_used(settings: NginxSettings) -> None:
    """The workers write there, nobody else reads."""
    settings.used.mkdir(mode=0o700, exist_ok=True)
    if settings.worker_user is not None:
        os.chown(settings.used, pwd.getpwnam(settings.worker_user).pw_uid, -1)


def _copy(source: Path, target: Path) -> None:
    _replace(target, source.read_bytes())


def _replace(target: Path, content: bytes) -> None:
    """In one step, readable by all: a running nginx never reads half a file."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".new-", delete=False) as temporary:
        temporary.write(content)
    Path(temporary.name).chmod(0o644)
    Path(temporary.name).replace(target)


def _check_reachable(directory: Path, user: str) -> None:
    """Whether the workers may pass through each directory on the way: a home of root's is mode 0700."""
    account = pwd.getpwnam(user)
    for step in (directory, *directory.parents):
        status = step.stat()
        needed = (
            0o100 if status.st_uid == account.pw_uid else 0o010 if status.st_gid == account.pw_gid else 0o001
        )
        if not status.st_mode & needed:
            raise NginxConfigError(
                f"nginx's workers run as {user}, who may not enter {step}. Put the data directory elsewhere "
                f"(/var/lib/codepods), or let others pass: chmod o+x {step}"
            )


def command(install: NginxInstall, settings: NginxSettings, *options: str) -> list[str]:
    """The command line that runs nginx in the foreground; `-t` checks, `-s quit` and `-s reload` signal."""
    prefix = settings.prefix
    own = [install.binary, "-p", str(prefix), "-c", str(prefix / "nginx.conf")]
    own += ["-e", str(prefix / "logs" / "error.log"), *options]
    return own if options else [*_opened(settings), *own]


def _opened(settings: NginxSettings) -> list[str]:
    """The command that opens nginx's sockets before it becomes nginx; the same as the template's."""
    ports = [port for port in (settings.https_port, settings.http_port) if port is not None]
    tcp = [f"{address}:{port}" for port in ports for address in settings.listen_addresses]
    asked = [word for address in tcp for word in ("--tcp", address)]
    return [sys.executable, "-m", "compose.listeners", *asked, "--unix", str(gate_socket(settings)), "--"]


def edge_command(settings: NginxSettings) -> tuple[str, ...]:
    """The command that cuts the sockets of what was revoked."""
    sockets = settings.prefix / "logs" / "sockets.log"
    options = (("--revoked", settings.revoked), ("--sockets", sockets), ("--used", settings.used))
    return (sys.executable, "-m", "compose.edge", *(str(word) for pair in options for word in pair))


def gate_socket(settings: NginxSettings) -> Path:
    """Where nginx asks its own gate."""
    return settings.runtime / "gate.sock"
