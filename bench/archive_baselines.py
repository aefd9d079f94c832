"""The other side of `bench.archive`: the same trees into the same stores with tar, zstd and docker alone."""

import secrets
import shutil
import subprocess
import time
from pathlib import Path
from typing import IO, Protocol

import boto3
from botocore.config import Config

MIB = 1 << 20
BANDWIDTH_BYTES = 256 * MIB
ZSTD = ("zstd", "-3", "-T2", "-q", "-c")


class Baseline(Protocol):
    """A store, as somebody with a shell uses it."""

    # Where a server of ours stores the bytes; None where the caller itself does.
    server_pid: int | None

    def put(self, stream: IO[bytes]) -> str:
        """Store a stream under a new key, durably."""
        ...

    def size(self, key: str) -> int:
        """Bytes under the key."""
        ...

    def load(self, key: str, target: Path) -> None:
        """Download, unpack, have it on the disk."""

    def save(self, source: Path) -> str:
        """`tar | zstd` of a tree, straight into the store; the key."""
        tar = subprocess.Popen(["tar", "-C", source, "-c", "."], stdout=subprocess.PIPE)
        zstd = subprocess.Popen(ZSTD, stdin=tar.stdout, stdout=subprocess.PIPE)
        assert tar.stdout
        assert zstd.stdout
        tar.stdout.close()
        key = self.put(zstd.stdout)
        if tar.wait() or zstd.wait():
            raise RuntimeError("tar | zstd failed")
        return key

    def bandwidth(self) -> float:
        """Bytes a second of one large object that is already made."""
        began = time.monotonic()
        with subprocess.Popen(
            ["head", "-c", str(BANDWIDTH_BYTES), "/dev/zero"], stdout=subprocess.PIPE
        ) as zeros:
            assert zeros.stdout
            self.put(zeros.stdout)
        return BANDWIDTH_BYTES / (time.monotonic() - began)


class DirectoryBaseline(Baseline):
    """Files in the store's directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.server_pid = None

    def put(self, stream: IO[bytes]) -> str:
        key = f"base-{secrets.token_hex(8)}"
        subprocess.run(
            ["dd", f"of={self._root / key}", "bs=1M", "conv=fsync", "status=none"], stdin=stream, check=True
        )
        return key

    def size(self, key: str) -> int:
        return (self._root / key).stat().st_size

    def load(self, key: str, target: Path) -> None:
        with (self._root / key).open("rb") as stream:
            _unpack(stream, target)


class S3Baseline(Baseline):
    """boto3's own transfer of streams."""

    def __init__(self, endpoint: str, bucket: str, server_pid: int) -> None:
        self.server_pid = server_pid
        self._bucket = bucket
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            config=Config(
                request_checksum_calculation="when_required", response_checksum_validation="when_required"
            ),
        )

    def put(self, stream: IO[bytes]) -> str:
        key = f"base-{secrets.token_hex(8)}"
        self._client.upload_fileobj(stream, self._bucket, key)
        return key

    def size(self, key: str) -> int:
        return int(self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"])

    def load(self, key: str, target: Path) -> None:
        # One stream: boto3's parallel transfer into a pipe waits for itself for ever (s3transfer's window).
        body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        unpacking = _unpacking(subprocess.PIPE, target)
        assert unpacking.stdin
        with unpacking.stdin as pipe:
            shutil.copyfileobj(body, pipe, MIB)
        _finished(unpacking, target)


def _unpack(stream: IO[bytes], target: Path) -> None:
    _finished(_unpacking(stream, target), target)


def _unpacking(stream: IO[bytes] | int, target: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["tar", "--zstd", "-C", target, "-x", "-p"], stdin=stream)


def _finished(unpacking: subprocess.Popen[bytes], target: Path) -> None:
    if unpacking.wait():
        raise RuntimeError("tar failed")
    subprocess.run(["sync", "--file-system", target], check=True)


def compressed_bytes(tree: Path) -> int:
    """Of the tree's regular files, one after the other, without names or attributes."""
    script = 'find "$0" -type f -print0 | sort -z | xargs -0 cat | zstd -3 -q -c | wc -c'
    return int(subprocess.run(["sh", "-c", script, tree], capture_output=True, check=True).stdout)


def seeds_way(baseline: Baseline, container_id: str) -> int:
    """Commit the container, save its whole image into the store; the bytes stored."""
    tag = f"codepods-bench:{secrets.token_hex(6)}"
    subprocess.run(["docker", "commit", container_id, tag], check=True, capture_output=True)
    try:
        with subprocess.Popen(["docker", "save", tag], stdout=subprocess.PIPE) as saving:
            assert saving.stdout
            key = baseline.put(saving.stdout)
        if saving.returncode:
            raise RuntimeError("docker save failed")
    finally:
        subprocess.run(["docker", "rmi", tag], check=True, capture_output=True)
    return baseline.size(key)
