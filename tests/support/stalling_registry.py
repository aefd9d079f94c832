"""A registry on loopback with one small image, which can stop in the middle of a layer."""

import gzip
import hashlib
import io
import json
import secrets
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
LAYER_BYTES = 400_000


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _layer() -> tuple[bytes, str]:
    """A compressed layer that no engine has yet, and the digest of what is in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("random")
        member.size = LAYER_BYTES
        tar.addfile(member, io.BytesIO(secrets.token_bytes(LAYER_BYTES)))
    return gzip.compress(buffer.getvalue()), _digest(buffer.getvalue())


@dataclass
class StallingRegistry:
    """While `stalled`, half of the layer is sent, and then nothing, with the connection open."""

    port: int = 0
    asked: int = 0
    flowing: threading.Event = field(default_factory=threading.Event)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""

    def __post_init__(self) -> None:
        layer, diff_id = _layer()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/nothing"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        packed = json.dumps(config).encode()
        self.blobs = {_digest(packed): packed, _digest(layer): layer}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(packed),
                    "digest": _digest(packed),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(layer),
                        "digest": _digest(layer),
                    }
                ],
            }
        ).encode()

    @property
    def image(self) -> str:
        """What to pull."""
        return f"127.0.0.1:{self.port}/slow/image:1"

    def send(self, content: bytes, handler: BaseHTTPRequestHandler) -> None:
        """A blob, as far as it flows."""
        if len(content) < LAYER_BYTES:
            handler.wfile.write(content)
            return
        self.asked += 1
        half = len(content) // 2
        handler.wfile.write(content[:half])
        handler.wfile.flush()
        self.flowing.wait()
        handler.wfile.write(content[half:])


def _answer(registry: StallingRegistry, handler: BaseHTTPRequestHandler) -> None:
    _, _, name = handler.path.rpartition("/")
    manifests = "/manifests/" in handler.path
    content = registry.manifest if manifests else registry.blobs.get(name, b"{}")
    handler.send_response(200)
    handler.send_header("Content-Type", MANIFEST_TYPE if manifests else "application/octet-stream")
    handler.send_header("Content-Length", str(len(content)))
    handler.send_header("Docker-Distribution-Api-Version", "registry/2.0")
    if manifests:
        handler.send_header("Docker-Content-Digest", _digest(content))
    handler.end_headers()
    if handler.command == "GET":
        registry.send(content, handler)


@contextmanager
def stalling_registry() -> Iterator[StallingRegistry]:
    """Serves while the block runs, and is stalled until its `flowing` is set."""
    registry = StallingRegistry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                _answer(registry, self)
            except OSError:  # whoever asked has gone
                self.close_connection = True

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry
    finally:
        registry.flowing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def registry() -> Iterator[StallingRegistry]:
    """Stalled; what came of its image is removed from the machine's engine afterwards."""
    with stalling_registry() as made:
        yield made
    subprocess.run(["docker", "image", "rm", "-f", made.image], capture_output=True, check=False, timeout=60)
