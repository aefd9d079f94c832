"""What bench/proxy.py puts beside each other: codepods' front door, plain nginx, configurable-http-proxy.

All listen on loopback with the same certificate and TLS settings, have one worker, and send a request for
`/pods/<kind>-<n>/…` to the backend of that kind.
"""

import contextlib
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from api.access_files import ensure_revoked
from api.access_token import AccessClaims, Keyring, Use, seal
from compose.layout import find_home
from compose.nginx_config import TLS_CIPHERS, NginxSettings, find_nginx
from compose.runtime_directory import discard, runtime_directory
from tests.support.nginx import WORKER_USER, running_nginx, self_signed
from tests.support.ports import free_port

# A pod's requests are limited to 200/s with a burst of 2,000: the load is spread, as that of a class is.
PODS = 64
WORKER_CONNECTIONS = 32_768
START_TIMEOUT_S_MAX = 20.0
IDE_START_TIMEOUT_S_MAX = 120.0
INSTALL_TIMEOUT_S_MAX = 120
# Not `nginx: worker process is shutting down`, nor those that look after its cache.
NGINX_WORKER = "nginx: worker process"
CHP_VERSION = "5.3.0"
SESSION_LIFETIME_S = 3600
PROCESSORS = sorted(os.sched_getaffinity(0))

_TRIVIAL = """daemon off; pid {prefix}/pid; error_log {prefix}/error.log;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "trivial\\n"; }} }}
}}
"""

# What one writes without tokens: upstreams by name, each request to the one its path names, sockets upgraded.
_PLAIN = """daemon off; pid {prefix}/pid; error_log {prefix}/error.log;
{user}
worker_processes 1;
worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
http {{
    access_log {prefix}/access.log;
    map $http_upgrade $upgrade {{ default ""; "~*^websocket$" websocket; }}
    map $upgrade $connection_header {{ default upgrade; "" close; }}
    map $pod $upstream_of_pod {{ {upstreams} }}
    server {{
        listen 127.0.0.1:{port}{tls};
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers {ciphers};
        location ~ "^/pods/(?<pod>[a-z0-9-]{{1,63}})(?<rest>/.*)$" {{
            proxy_pass http://$upstream_of_pod$rest$is_args$args;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $upgrade;
            proxy_set_header Connection $connection_header;
            proxy_read_timeout 7d;
        }}
    }}
}}
"""


class UnavailableError(Exception):
    """A part that is compared with cannot be had here. The message says why."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the proxies of one run share. `backends`: kind → `address:port`."""

    directory: Path
    certificate: Path
    certificate_key: Path
    backends: Mapping[str, str]

    @property
    def tls(self) -> ssl.SSLContext:
        """Trusts this run's certificate."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False
        return context


@dataclass
class Front:
    """One proxy that runs. `keyring` only where there are tokens."""

    name: str
    site: Site
    port: int
    process: subprocess.Popen[bytes]
    keyring: Keyring | None = None
    keyring_file: Path | None = None
    tls: bool = True

    @property
    def worker(self) -> int:
        """The process that serves: nginx's newest worker, or the one process there is."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        workers = [pid for pid in map(int, children) if _title(pid) == NGINX_WORKER]
        return workers[-1] if workers else self.process.pid

    def cpu_s(self) -> float:
        """Processor time of the worker with its threads, in seconds; schedstat counts ns, stat only ticks."""
        tasks = Path(f"/proc/{self.worker}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident_kib(self) -> int:
        """Resident memory of the worker in KiB; what the kernel holds for sockets is not in it."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def cookie(self, pod: str) -> str:
        """The Cookie header of a browser that has opened this pod; others get one of the same length."""
        return f"__Secure-codepods-{pod}={self._token(pod, 'cookie')}"

    def link(self, pod: str) -> str:
        """The target of a fresh link to this pod."""
        return f"/pods/{pod}/x?tkn={self._token(pod, 'url')}"

    def _token(self, pod: str, use: Use) -> str:
        keyring = self.keyring or Keyring.new()
        claims = AccessClaims(
            pod=pod,
            user="learner-of-the-bench",
            epoch=1,
            upstream=self.site.backends[pod.partition("-")[0]],
            secret="0123456789abcdef" * 4,
            expires_at=int(time.time()) + SESSION_LIFETIME_S,
            session_id=secrets.token_urlsafe(12),
        )
        return seal(claims, keyring, use)

    def rotate(self) -> None:
        """A fresh key seals; the one before still opens. nginx is not told."""
        assert self.keyring is not None
        assert self.keyring_file is not None
        self.keyring = self.keyring.rotated()
        self.keyring.save(self.keyring_file, group=WORKER_USER)

    def reload(self) -> None:
        """nginx reads its configuration again with a new worker."""
        self.process.send_signal(1)


def _title(pid: int) -> str:
    """What a process calls itself."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")


def pods(kind: str) -> list[str]:
    """The pods whose backend is of this kind."""
    return [f"{kind}-{number:02}" for number in range(PODS)]


@contextlib.contextmanager
def site(directory: Path, ide: str | None) -> Iterator[Site]:
    """The certificate and the backends `load` (trivial), `echo` (sockets) and, with an address, `ide`."""
    certificate, key = self_signed(directory, "localhost")
    with _trivial(directory) as load, _echo() as echo:
        backends = {"load": load, "echo": echo, **({"ide": ide} if ide else {})}
        yield Site(directory, certificate, key, backends)


@contextlib.contextmanager
def _trivial(directory: Path) -> Iterator[str]:
    port = free_port()
    config = _TRIVIAL.format(prefix=directory / "trivial", port=port)
    with _nginx(directory / "trivial", config, port) as process:
        pin(process.pid, proxy=False)
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def _echo() -> Iterator[str]:
    command = [sys.executable, "-m", "bench.proxy_echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


@contextlib.contextmanager
def ours(site: Site, name: str, *, tls: bool = True) -> Iterator[Front]:
    """The front door as `compose/nginx_config.py` renders it, asked by cookie."""
    install = find_nginx()
    keyring, keyring_file = Keyring.new(), site.directory / f"{name}.keyring.json"
    keyring.save(keyring_file, group=WORKER_USER)
    ensure_revoked(keyring_file)
    settings = NginxSettings(
        prefix=site.directory / name,
        runtime=runtime_directory(site.directory / name),
        module=install.module,
        keyring=keyring_file,
        certificate=site.certificate,
        certificate_key=site.certificate_key,
        public_host="localhost",
        https_port=free_port(),
        api_upstream=site.backends["load"],
        upstream_networks=("127.0.0.0/8", "172.16.0.0/12"),
        listen_addresses=("127.0.0.1",),
        worker_user=WORKER_USER,
        worker_processes=1,
        worker_connections=WORKER_CONNECTIONS,
        http2_directive=install.http2_directive,
        perl_module=install.perl_module,
        tls=tls,
        trusted_peers=() if tls else ("127.0.0.1/32",),
    )
    try:
        with running_nginx(settings) as nginx:
            pin(nginx.process.pid, proxy=True)
            yield Front(name, site, settings.https_port, nginx.process, keyring, keyring_file, tls)
    finally:
        discard(settings.prefix)


@contextlib.contextmanager
def plain(site: Site, name: str, *, tls: bool = True) -> Iterator[Front]:
    """nginx with a variable `proxy_pass` and no gate."""
    port, prefix = free_port(), site.directory / name
    upstreams = " ".join(f'"~^{kind}-" {address};' for kind, address in site.backends.items())
    config = _PLAIN.format(
        prefix=prefix,
        user=f"user {WORKER_USER};" if WORKER_USER else "",
        files=2 * WORKER_CONNECTIONS + 1024,
        connections=WORKER_CONNECTIONS,
        upstreams=upstreams,
        port=port,
        tls=" ssl http2" if tls else "",
        certificate=site.certificate,
        key=site.certificate_key,
        ciphers=":".join(TLS_CIPHERS),
    )
    with _nginx(prefix, config, port) as process:
        pin(process.pid, proxy=True)
        yield Front(name, site, port, process, tls=tls)


@contextlib.contextmanager
def _nginx(prefix: Path, config: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    prefix.mkdir(parents=True)
    (prefix / "nginx.conf").write_text(config)
    command = [find_nginx().binary, "-p", str(prefix), "-e", str(prefix / "error.log")]
    with _program([*command, "-c", str(prefix / "nginx.conf")], port) as process:
        yield process


@contextlib.contextmanager
def _program(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A program, once it listens, until the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _await_port(process, port)
            yield process
        finally:
            process.terminate()


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise UnavailableError(f"{process.args!r} does not listen on port {port}")


def install_chp(cache: Path) -> Path:
    """The command of configurable-http-proxy, installed into `cache` by npm. Raises `UnavailableError`."""
    command = cache / "node_modules" / ".bin" / "configurable-http-proxy"
    if command.exists():
        return command
    if shutil.which("npm") is None:
        raise UnavailableError("npm is not on PATH")
    cache.mkdir(parents=True, exist_ok=True)
    package = f"configurable-http-proxy@{CHP_VERSION}"
    done = subprocess.run(
        ["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund", package],
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S_MAX,
        check=False,
    )
    if done.returncode != 0 or not command.exists():
        raise UnavailableError(f"npm could not install {package}: {done.stderr.strip()[-300:]}")
    return command


@contextlib.contextmanager
def chp(site: Site, name: str, command: Path) -> Iterator[Front]:
    """configurable-http-proxy with one route for all, its cheapest case; it checks nothing."""
    port = free_port()
    arguments = [
        *("--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1", "--api-port", str(free_port())),
        *("--ssl-cert", str(site.certificate), "--ssl-key", str(site.certificate_key)),
        *("--default-target", f"http://{site.backends['load']}", "--log-level", "warn"),
    ]
    with _program([str(command), *arguments], port) as process:
        pin(process.pid, proxy=True)
        yield Front(name, site, port, process)


@contextlib.contextmanager
def real_ide() -> Iterator[str]:
    """`address:port` of a code-server of the pod image, started for this. Raises `UnavailableError`."""
    record = find_home() / "pod_image"
    if not record.exists():
        raise UnavailableError(f"{record} is not there: make image")
    image = record.read_text().splitlines()[0]
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        (Path(directory) / "session").write_text(secrets.token_hex(32))
        container = _docker("run", "--detach", "--volume", f"{directory}:/run/codepods:ro", image)
        try:
            address = _docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container)
            _await_ide(f"http://{address}:8080/healthz")
            yield f"{address}:8080"
        finally:
            _docker("rm", "--force", "--volumes", container)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _await_ide(url: str) -> None:
    deadline = time.monotonic() + IDE_START_TIMEOUT_S_MAX
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise UnavailableError(f"{url} does not answer")


def pin(pid: int, *, proxy: bool) -> None:
    """The proxies on the last processor, all else on the others: neither takes the other's time."""
    processors = PROCESSORS[-1:] if proxy else PROCESSORS[:-1] or PROCESSORS
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in (pid, *map(int, children)):
        for task in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(task.name), processors)
