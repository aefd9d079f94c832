"""Containers' files through the engine's public API: what works whatever the storage driver.

What it cannot carry is told in docs/archive-format.md. Reading follows mounts: callers leave them out.
"""

import io
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import docker

from node_agent.containerd_upper import snapshot_upper_dir
from node_agent.docker_errors import translated
from node_agent.errors import EngineRefused, NotFound
from node_agent.runtime import ChangeKind, Container, OpenPath, PathChange, PathType
from node_agent.store import CHUNK_BYTES

CHANGES_MAX = 1_000_000
SAID_LENGTH_MAX = 500
SCRATCH_LABEL = "codepods.scratch"
_KINDS = (ChangeKind.MODIFIED, ChangeKind.ADDED, ChangeKind.DELETED)
# Go's os.FileMode, which the engine's JSON shows.
_GO_FOLDER, _GO_SOCKET = 1 << 31, 1 << 24
# Read-only to the agent, made anew by the engine at each start.
_ENGINES_OWN = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys", "/.dockerenv")


class DockerFiles:
    """See `runtime.EngineFiles`."""

    def __init__(self, node_id: str, client: Callable[[], docker.APIClient]) -> None:
        self._node_id = node_id
        self._client = client

    def changed_paths(self, container_id: str) -> tuple[PathChange, ...]:
        """The engine compares with the image: this takes as long as the image is large."""
        with translated(f"list the changes of container {container_id[:12]}"):
            found = self._client().diff(container_id) or ()
        if len(found) > CHANGES_MAX:
            raise EngineRefused(
                f"The pod has {len(found)} changed paths; through the engine's API at most {CHANGES_MAX} are "
                "saved. Use the overlay2 storage driver on this node, or remove some."
            )
        return tuple(PathChange(_KINDS[change["Kind"]], change["Path"]) for change in found)

    def mounts_of(self, container_id: str) -> tuple[str, ...]:
        """The container's mounts, and what the engine makes for each container by itself."""
        with translated(f"inspect container {container_id[:12]}"):
            found = self._client().inspect_container(container_id)
        return (*_ENGINES_OWN, *(mount["Destination"] for mount in found.get("Mounts") or ()))

    @contextmanager
    def open_path(self, container_id: str, path: str) -> Iterator[OpenPath]:
        """Leaving early cuts the connection, so that the rest is not sent."""
        doing = f"read {path[:200]!r} of container {container_id[:12]}"
        with translated(doing):
            chunks, seen = self._client().get_archive(container_id, path, chunk_size=CHUNK_BYTES)
        try:
            yield OpenPath(_type(seen or {}), _told(doing, chunks))
        finally:
            chunks.close()

    def type_of(self, container_id: str, path: str) -> PathType | None:
        """Costs the engine a mount each time, but sends no content."""
        try:
            with self.open_path(container_id, path) as opened:
                return opened.type
        except NotFound:
            return None

    def write_tree(self, container_id: str, chunks: Iterable[bytes]) -> None:
        """Sent as it comes, without a length."""
        with translated(f"write into container {container_id[:12]}"):
            self._client().put_archive(container_id, "/", chunks)

    def run_as_root(self, container_id: str, argv: Sequence[str]) -> tuple[int, str]:
        """Waits for its end."""
        with translated(f"run {argv[0]} in container {container_id[:12]}"):
            client = self._client()
            run = client.exec_create(container_id, list(argv), user="0", workdir="/")
            said: bytes = client.exec_start(run["Id"])
            code = client.exec_inspect(run["Id"])["ExitCode"]
        return int(code), said.decode("utf-8", "replace")[-SAID_LENGTH_MAX:]

    def upper_dir(self, container: Container) -> str | None:
        """As the overlay2 driver says it, or as containerd does."""
        return container.upper_dir or snapshot_upper_dir(container.id)

    @contextmanager
    def scratch_container(self) -> Iterator[str]:
        """Of an image of our own, with one empty file in it: the node may have no other yet."""
        image = f"codepods-scratch:{self._node_id}-{secrets.token_hex(4)}"
        with translated("make a scratch container"):
            client = self._client()
            self._sweep(client)
            name, _, tag = image.partition(":")
            ours = [f"LABEL {SCRATCH_LABEL}={self._node_id}"]
            client.import_image_from_data(_one_file(), repository=name, tag=tag, changes=ours)
            made = client.create_container(
                image,
                ["never-started"],
                labels={SCRATCH_LABEL: self._node_id},
                host_config=client.create_host_config(network_mode="none"),
            )
        try:
            yield made["Id"]
        finally:
            with translated("remove a scratch container"):
                self._sweep(client)

    def _sweep(self, client: docker.APIClient) -> None:
        """Also what an agent left that was killed in the middle."""
        ours = {"label": f"{SCRATCH_LABEL}={self._node_id}"}
        for found in client.containers(all=True, filters=ours):
            with suppress(docker.errors.NotFound):
                client.remove_container(found["Id"], v=False, force=False)
        for found in client.images(filters=ours):
            with suppress(docker.errors.NotFound):
                client.remove_image(found["Id"])


def _told(doing: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    with translated(doing):
        yield from chunks


def _type(seen: dict[str, Any]) -> PathType:
    mode = int(seen.get("mode", 0))
    if mode & _GO_FOLDER:
        return PathType.FOLDER
    return PathType.SOCKET if mode & _GO_SOCKET else PathType.OTHER


def _one_file() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("scratch")
        member.mode = stat.S_IRUSR
        tar.addfile(member)
    return buffer.getvalue()
