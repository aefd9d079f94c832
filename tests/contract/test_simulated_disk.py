"""The simulated disk keeps the real one's contract: the agent's files, and trees to the store and back."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from node_agent.archive.capture import capture_tree
from node_agent.archive.errors import ArchiveError
from node_agent.archive.fingerprint import tree_fingerprint
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.archive.restore import restore_archive
from node_agent.directory_store import DirectoryStore
from node_agent.errors import StepError
from node_agent.host import HostFiles
from node_agent.runtime import Volume, VolumeState
from node_agent.store import Store, StoreError
from state.model import TargetKind
from tests.sim.docker import SimDocker
from tests.sim.host import SimHost
from tests.sim.store import SimStore
from tests.sim.trees import Trees
from tests.sim.undisturbed import Undisturbed

FOLDERS = count()
FILE = "written"
ABSENT = "a" * 64
Call = tuple[Any, ...]


class Disk(ABC):
    """A node's disk: volumes and trees are known by name, secrets and digests by first sight."""

    host: Any
    store: Store
    trees: Any

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.volumes: dict[str, Volume] = {}
        self.blobs: dict[str, BlobRef] = {}

    def outcome(self, call: Call) -> object:
        """What came of it."""
        verb, *arguments = call
        try:
            return CALLS[verb](self, *arguments)
        except (StepError, ArchiveError, StoreError) as error:
            return type(error), error.code

    def told(self, value: str | None) -> object:
        """Which of those that were seen it is."""
        if value is None:
            return None
        if value not in self.seen:
            self.seen.append(value)
        return len(value), self.seen.index(value)

    def capture(self, name: str, key: str) -> object:
        """Into the store, under a key of its own, as each attempt has one."""
        if key in self.blobs:
            return None
        blob = self.trees_capture(self.path(name), self.store.open_writer(f"blobs/{key}")).blob
        self.blobs[key] = blob
        return blob.key

    def restore(self, key: str, name: str) -> object:
        """Into a new tree; of what was never archived, by a manifest that promises it.

        How much of a damaged archive was unpacked before it was seen, nothing promises: the agent drops it.
        """
        self.drop(name)
        self.make(name)
        blob = self.blobs.get(key) or BlobRef(key=f"blobs/{key}", size_bytes=1, sha256=ABSENT, tar_bytes=1)
        try:
            self.trees_restore(self.store, _manifest(blob), self.path(name))
        except (StepError, ArchiveError, StoreError):
            self.drop(name)
            raise
        return self.content(name)

    def restore_nowhere(self, key: str) -> None:
        """Into a tree that somebody has removed."""
        self.trees_restore(self.store, _manifest(self.blobs[key]), self.path("nowhere"))

    @abstractmethod
    def make(self, name: str) -> None:
        """An empty tree, which is a volume's."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """The engine removed it."""

    @abstractmethod
    def path(self, name: str) -> Path:
        """Of a tree, there or not."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """By its user, at the end of their file; where there is no tree, nothing."""

    @abstractmethod
    def content(self, name: str) -> bytes:
        """What the user has written."""

    @abstractmethod
    def damage(self, key: str) -> None:
        """Other bytes in the store."""

    trees_capture: Callable[..., Any]
    trees_restore: Callable[..., Any]
    trees_fingerprint: Callable[[Path], str]


class RealDisk(Disk):
    """Directories, tar, and a store in a directory."""

    trees_capture = staticmethod(capture_tree)
    trees_restore = staticmethod(restore_archive)
    trees_fingerprint = staticmethod(tree_fingerprint)

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root
        self.host = HostFiles(root / "agent")
        self.store = DirectoryStore(root / "store")

    def path(self, name: str) -> Path:
        """See Disk; as Docker lays volumes out."""
        return self._root / "volumes" / name / "_data"

    def make(self, name: str) -> None:
        """See Disk."""
        self.path(name).mkdir(parents=True, exist_ok=True)
        self.volumes[name] = Volume(name, {}, str(self.path(name)))

    def drop(self, name: str) -> None:
        """See Disk."""
        shutil.rmtree(self.path(name).parent, ignore_errors=True)

    def write(self, name: str, data: bytes) -> None:
        """See Disk."""
        if self.path(name).exists():
            with (self.path(name) / FILE).open("ab") as file:
                file.write(data)

    def content(self, name: str) -> bytes:
        """See Disk."""
        file = self.path(name) / FILE
        return file.read_bytes() if file.exists() else b""

    def damage(self, key: str) -> None:
        """See Disk."""
        file = self._root / "store" / "blobs" / key
        if file.exists():
            file.write_bytes(_damaged(file.read_bytes()))


class SimDisk(Disk):
    """The simulation's."""

    def __init__(self) -> None:
        super().__init__()
        scheduler = Undisturbed(0)
        self._trees = Trees(scheduler)
        self._docker = SimDocker("node-0", scheduler, self._trees, lambda _what, _docker, _thing: None)
        self.host = SimHost(self._docker)
        self.store = SimStore(scheduler, lambda _kind, _key: None)
        self.trees_capture, self.trees_restore = self._trees.capture, self._trees.restore
        self.trees_fingerprint = self._trees.fingerprint

    def path(self, name: str) -> Path:
        """See Disk."""
        return Path(f"/sim/node-0/volumes/{name}")

    def make(self, name: str) -> None:
        """See Disk."""
        self.volumes[name] = self._docker.create_volume(name, {})

    def drop(self, name: str) -> None:
        """See Disk."""
        self._docker.remove_volume(name)

    def write(self, name: str, data: bytes) -> None:
        """See Disk."""
        if name in self._docker.volumes:
            self._docker.volumes[name].tree.append(data)

    def content(self, name: str) -> bytes:
        """See Disk."""
        return self._docker.volumes[name].tree.data

    def damage(self, key: str) -> None:
        """See Disk."""
        objects = self.store.objects  # type: ignore[attr-defined]
        if f"blobs/{key}" in objects:
            objects[f"blobs/{key}"] = _damaged(objects[f"blobs/{key}"])


def _damaged(blob: bytes) -> bytes:
    """With another last byte, whatever it was: a fixed one is what is there already, once in 256 archives."""
    return blob[:-1] + bytes([(blob[-1] + 1) % 256]) if blob else b"?"


def _manifest(blob: BlobRef) -> Manifest:
    return Manifest(
        kind=TargetKind.WORKSPACE,
        target_id="w-one",
        user_id="alice",
        epoch=1,
        attempt=1,
        number=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        fingerprint={"tree": ABSENT},
        method="volume",
        blobs=(blob,),
        entries=1,
    )


def _session(disk: Disk, pod_id: str, epoch: int) -> str:
    path: str = disk.host.session_dir(pod_id, epoch)
    return path


CALLS: dict[str, Callable[..., object]] = {
    "write_session": lambda disk, *pod: disk.told(disk.host.write_session(_session(disk, *pod))),
    "read_session": lambda disk, *pod: disk.told(disk.host.read_session(_session(disk, *pod))),
    "read_no_session": lambda disk: disk.host.read_session(None),
    "drop_session": lambda disk, *pod: disk.host.drop_session(*pod),
    "make": lambda disk, name: disk.make(name),
    "drop": lambda disk, name: disk.drop(name),
    "write": lambda disk, name, data: disk.write(name, data),
    "volume_state": lambda disk, name: disk.host.volume_state(disk.volumes.get(name)),
    "mark": lambda disk, name, state: name in disk.volumes and disk.host.mark(disk.volumes[name], state),
    "own_top": lambda disk, name: name in disk.volumes and disk.host.own_top(disk.volumes[name]),
    "fingerprint": lambda disk, name: disk.told(disk.trees_fingerprint(disk.path(name))),
    "capture": Disk.capture,
    "restore": Disk.restore,
    "restore_nowhere": Disk.restore_nowhere,
    "damage": lambda disk, key: disk.damage(key),
}

pods = st.tuples(st.sampled_from(("p-one", "p-two")), st.sampled_from((1, 2)))
names = st.sampled_from(("v", "v", "w"))
keys = st.sampled_from(("one", "two"))
data = st.sampled_from((b"x", b"other"))
of_the_host = st.one_of(
    st.tuples(st.sampled_from(("write_session", "read_session", "drop_session")), pods).map(
        lambda drawn: (drawn[0], *drawn[1])
    ),
    st.just(("read_no_session",)),
    st.tuples(st.sampled_from(("make", "drop", "volume_state", "volume_state", "own_top")), names),
    st.tuples(st.just("mark"), names, st.sampled_from((VolumeState.HALF, VolumeState.WHOLE))),
    st.tuples(st.just("write"), names, data),
)
of_trees = st.one_of(
    st.tuples(st.sampled_from(("make", "fingerprint", "drop")), names),
    st.tuples(st.just("write"), names, data),
    st.tuples(st.just("capture"), names, keys),
    st.tuples(st.just("restore"), keys, names),
    st.tuples(st.just("damage"), keys),
)


def _compare(folder: Path, sequence: list[Call]) -> None:
    real, simulated = RealDisk(folder / str(next(FOLDERS))), SimDisk()
    for call in sequence:
        assert simulated.outcome(call) == real.outcome(call), call


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sequence=st.lists(of_the_host, max_size=20))
@example(
    sequence=[
        ("make", "v"),
        ("volume_state", "v"),
        ("write", "v", b"x"),
        ("volume_state", "v"),
        ("own_top", "v"),
        ("mark", "v", VolumeState.HALF),
        ("volume_state", "v"),
        ("drop", "v"),
        ("volume_state", "v"),
        ("mark", "v", VolumeState.WHOLE),
        ("own_top", "v"),
        ("make", "v"),
        ("volume_state", "v"),
    ]
)
@example(
    sequence=[
        ("read_session", "p-one", 1),
        ("write_session", "p-one", 1),
        ("write_session", "p-one", 2),
        ("read_session", "p-one", 1),
        ("drop_session", "p-one", 1),
        ("drop_session", "p-one", 1),
        ("read_session", "p-one", 1),
        ("read_session", "p-one", 2),
    ]
)
def test_the_agent_s_own_files_are_simulated_as_they_are(tmp_path: Path, sequence: list[Call]) -> None:
    """Session secrets, and what is known of volumes, also of such as are gone."""
    _compare(tmp_path, sequence)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sequence=st.lists(of_trees, max_size=12))
@example(
    sequence=[
        ("fingerprint", "v"),
        ("write", "v", b"x"),
        ("fingerprint", "v"),
        ("fingerprint", "v"),
        ("restore", "one", "w"),
        ("fingerprint", "w"),
        ("restore", "one", "w"),
        ("fingerprint", "w"),
        ("restore", "two", "w"),
        ("damage", "one"),
        ("restore", "one", "w"),
        ("drop", "v"),
        ("fingerprint", "v"),
        ("capture", "v", "two"),
        ("make", "v"),
        ("capture", "v", "two"),
        ("restore", "two", "w"),
        ("restore_nowhere", "two"),
    ]
)
def test_trees_are_simulated_as_tar_has_them(tmp_path: Path, sequence: list[Call]) -> None:
    """What changes a fingerprint; what comes back of an archive; what a missing or damaged one is called."""
    _compare(tmp_path, [("make", "v"), ("write", "v", b"first"), ("capture", "v", "one"), *sequence])
