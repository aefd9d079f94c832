"""Where the files of a local installation are: one directory, which holds all of its state.

`$CODEPODS_HOME`, or `.codepods` in the checkout. docs/operations.md shows it to people.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SAMPLE_LABS = CHECKOUT / "pod_image" / "labs"
# Where a home goes that other system users could not reach in the checkout (a clone under /root, say).
SHARED_HOMES = Path("/var/lib/codepods")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths under a home directory. Nothing here is made or read: see `make_directories`."""

    home: Path

    @property
    def postgres(self) -> Path:
        """The embedded PostgreSQL's data."""
        return self.home / "postgres"

    @property
    def store(self) -> Path:
        """The object store, as a directory: archives and labs."""
        return self.home / "store"

    @property
    def nginx(self) -> Path:
        """The rendered nginx configuration and its scratch files."""
        return self.home / "nginx"

    @property
    def tls(self) -> Path:
        """The certificate authority of this installation, and the server's certificate."""
        return self.home / "tls"

    @property
    def keyring(self) -> Path:
        """The keys that seal and open access tokens: written by us, read by the API and by nginx."""
        return self.home / "access" / "keyring.json"

    @property
    def ports(self) -> Path:
        """Which ports of pods are open to others: written by the API, read by nginx."""
        return self.home / "access" / "ports"

    @property
    def log(self) -> Path:
        """One file per program."""
        return self.home / "log"

    @property
    def run(self) -> Path:
        """What is only true while it runs: pids, the lock, the supervisor's events."""
        return self.home / "run"

    @property
    def client(self) -> Path:
        """How `podctl` reaches this installation: address and token (0600)."""
        return self.home / "client.json"

    @property
    def config(self) -> Path:
        """The installation's id, its nodes and their tokens (0600)."""
        return self.home / "config.json"

    @property
    def pod_image(self) -> Path:
        """The image that `make image` built last: its reference, on one line."""
        return self.home / "pod_image"

    @property
    def lock(self) -> Path:
        """Held (flock) by the one supervisor of this home as long as it lives."""
        return self.run / "supervisor.lock"

    @property
    def settings(self) -> Path:
        """The operator's settings that the running system was started with (0600)."""
        return self.run / "settings.json"

    @property
    def events(self) -> Path:
        """What the supervisor did, one JSON object a line."""
        return self.run / "events.jsonl"

    def node(self, node_id: str) -> Path:
        """The data directory of one node's agent."""
        return self.home / "nodes" / node_id

    def log_of(self, program: str) -> Path:
        """The log of one program."""
        return self.log / f"{program}.log"

    def pid_of(self, program: str) -> Path:
        """The pid file of one program."""
        return self.run / f"{program}.pid"


def find_home(environ: Mapping[str, str] = os.environ, checkout: Path = CHECKOUT) -> Path:
    """The home directory that the environment or the checkout means. It need not exist yet."""
    named = environ.get("CODEPODS_HOME")
    return Path(named).expanduser().absolute() if named else checkout / ".codepods"


def open_to_others(path: Path) -> bool:
    """Whether any user of the system can walk to `path` (PostgreSQL and nginx's workers are not root)."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents if parent.exists())


def make_directories(layout: Layout, node_ids: tuple[str, ...]) -> None:
    """Make what is missing. The home stays walkable, its secrets are closed file by file.

    As root in a directory closed to others, the home is put under /var/lib/codepods and linked here.
    """
    _make_home(layout.home)
    closed = (layout.tls, layout.run, *(layout.node(node) for node in node_ids))
    walkable = (layout.store, layout.nginx, layout.log, layout.keyring.parent, layout.ports)
    for directory in (layout.home / "nodes", *closed, *walkable):
        directory.mkdir(mode=0o700 if directory in closed else 0o755, exist_ok=True)


def _make_home(home: Path) -> None:
    if home.exists():
        return
    home.parent.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or open_to_others(home):
        home.mkdir(mode=0o755)
        return
    elsewhere = SHARED_HOMES / hashlib.sha256(str(home).encode()).hexdigest()[:12]
    elsewhere.mkdir(mode=0o755, parents=True, exist_ok=True)
    if home.is_symlink():
        home.unlink()
    home.symlink_to(elsewhere)


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
