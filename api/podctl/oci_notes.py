"""What an image that is being downloaded says of itself: read along, for it is told before it is used."""

import io
import json
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from state.model import OCI_NOT_KEPT

# The image's index and manifest come first, with at most some kilobytes each.
HEAD_BYTES_MAX = 1 << 20


class OciNotes:
    """Sees a download's chunks, and keeps the first ones."""

    def __init__(self) -> None:
        self._head = bytearray()

    def see(self, chunk: bytes) -> None:
        """One more chunk."""
        self._head += chunk[: HEAD_BYTES_MAX - len(self._head)]

    def not_kept(self) -> str:
        """What the image lacks of the archive, as its node says; empty where it does not say."""
        index = self._json("index.json")
        for described in index.get("manifests", ()):
            manifest = self._json(f"blobs/{described['digest'].replace(':', '/')}")
            return str(manifest.get("annotations", {}).get(OCI_NOT_KEPT, ""))
        return ""

    def _json(self, name: str) -> Mapping[str, Any]:
        with suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(self._head), mode="r|") as tar:
            for info in tar:
                file = tar.extractfile(info) if info.name == name else None
                if file is not None:
                    found: Mapping[str, Any] = json.loads(file.read())
                    return found
        return {}
