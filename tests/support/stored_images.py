"""Small images in a real store, without an engine."""

import hashlib
from collections.abc import Iterable

import zstandard

from node_agent.archive.image_store import ImageManifest, Layer, image_key, layer_key
from node_agent.store import Store


def layer_of(content: bytes) -> Layer:
    """What names it."""
    return Layer(diff_id=f"sha256:{hashlib.sha256(content).hexdigest()}", tar_bytes=len(content))


def store_image(store: Store, config: str, *contents: bytes) -> str:
    """Write an image with these layers, as far as it is not there; its id."""
    image_id = f"sha256:{hashlib.sha256(config.encode()).hexdigest()}"
    if store.head(image_key(image_id)) is None:
        store_layers(store, contents)
        manifest = ImageManifest(image_id=image_id, config=config, layers=tuple(map(layer_of, contents)))
        store.put_manifest(image_key(image_id), manifest.model_dump_json().encode())
    return image_id


def store_layers(store: Store, contents: Iterable[bytes]) -> None:
    """Write them as far as they are not there."""
    for content in contents:
        key = layer_key(layer_of(content).diff_id)
        if store.head(key) is None:
            with store.open_writer(key) as writer:
                writer.write(zstandard.compress(content))
                writer.commit()
