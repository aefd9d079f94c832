"""Whole images in and out of the Docker engine, as streams."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import docker

from node_agent.docker_errors import translated
from node_agent.errors import NotFound
from node_agent.store import CHUNK_BYTES


class DockerImages:
    """See `runtime.EngineImages`."""

    def __init__(self, client: Callable[[], docker.APIClient]) -> None:
        self._client = client

    def layers_of(self, image_id: str) -> tuple[str, ...]:
        """As the image's own configuration names them."""
        with translated(f"inspect image {image_id[:80]}"):
            found: dict[str, Any] = self._client().inspect_image(image_id)  # type: ignore[no-untyped-call]
        return tuple((found.get("RootFS") or {}).get("Layers") or ())

    def chains(self) -> frozenset[tuple[str, ...]]:
        """Of all images, also of those that only serve as the base of others."""
        with translated("list images"):
            ids = {found["Id"] for found in self._client().images(all=True)}
        stacks = [stack for image_id in ids if (stack := self._layers_if_there(image_id))]
        return frozenset(stack[: end + 1] for stack in stacks for end in range(len(stack)))

    def _layers_if_there(self, image_id: str) -> tuple[str, ...]:
        try:
            return self.layers_of(image_id)
        except NotFound:  # removed since it was listed
            return ()

    @contextmanager
    def save(self, image_id: str) -> Iterator[Iterator[bytes]]:
        """The engine spools it on its own disk before the first byte comes."""
        doing = f"save image {image_id[:80]}"
        with translated(doing):
            chunks = self._client().get_image(image_id, chunk_size=CHUNK_BYTES)
        try:
            yield _told(doing, chunks)
        finally:
            chunks.close()

    def load(self, chunks: Iterable[bytes]) -> None:
        """The engine checks each layer's digest."""
        with translated("load an image"):
            said = self._client().load_image(chunks)  # type: ignore[no-untyped-call]
            for line in said:
                if "error" in line:
                    raise docker.errors.APIError(str(line["error"]))


def _told(doing: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    with translated(doing):
        yield from chunks
