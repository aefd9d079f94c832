"""What a store says when it is full, gone, locked or not there: typed errors with what to do."""

from pathlib import Path

import pytest

from node_agent.open_store import open_store
from node_agent.store import (
    Store,
    StoreAccessDenied,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreUnavailable,
)
from tests.support.ports import free_port
from tests.support.s3_servers import CREDENTIALS, rclone_server
from tests.support.small_disk import small_disk

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def write_zeros(store: Store, key: str, size_mib: int) -> None:
    """Write a blob of this size, a MiB at a time."""
    with store.open_writer(key) as writer:
        for _ in range(size_mib):
            writer.write(bytes(MIB))
        writer.commit()


def test_a_full_directory_keeps_the_old_and_drops_the_half(tmp_path: Path) -> None:
    """ENOSPC is StoreFull; the unfinished bytes are given back, so that a smaller blob fits at once."""
    with small_disk(tmp_path / "disk", 4) as disk:
        store = open_store(f"file://{disk}")
        write_zeros(store, "kept", 1)
        with pytest.raises(StoreFull, match="Make room"):
            write_zeros(store, "large", 8)
        assert store.list("") == ("kept",)
        write_zeros(store, "small", 2)
        assert store.list("") == ("kept", "small")


def test_a_full_s3_server_is_a_retryable_error(tmp_path: Path) -> None:
    """A server whose disk is full fails the upload, and nothing becomes visible."""
    with (
        small_disk(tmp_path / "disk", 4) as disk,
        rclone_server(disk, tmp_path / "log") as endpoint,
    ):
        store = open_store(f"s3://pods?endpoint={endpoint}")
        with pytest.raises(StoreError) as caught:
            write_zeros(store, "large", 20)
        assert caught.value.retryable
        assert store.list("") == ()


def test_a_wrong_secret_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the bucket and tells to check key, secret and policy; it holds no secret."""
    with rclone_server(tmp_path / "root", tmp_path / "log") as endpoint:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
        store = open_store(f"s3://pods?endpoint={endpoint}")
        with pytest.raises(StoreAccessDenied, match="Check the access key") as caught:
            store.probe()
    assert "pods" in str(caught.value)
    assert "not-the-secret" not in str(caught.value)


def test_missing_credentials_are_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials nothing is sent; the message names the two variables."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    store = open_store(f"s3://pods?endpoint=http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreAccessDenied, match="AWS_SECRET_ACCESS_KEY"):
        store.probe()


def test_a_missing_bucket_is_told_with_what_to_do(tmp_path: Path) -> None:
    """The message tells to create the bucket or to correct the URL."""
    with rclone_server(tmp_path / "root", tmp_path / "log") as endpoint:
        store = open_store(f"s3://no-such-bucket?endpoint={endpoint}")
        with pytest.raises(StoreNotFound, match="Create the bucket"):
            store.probe()


def test_a_server_that_is_down_is_a_retryable_error() -> None:
    """Connection refused is StoreUnavailable from every verb."""
    store = open_store(f"s3://pods?endpoint=http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable):
        store.head("key")
    with pytest.raises(StoreUnavailable):
        write_zeros(store, "large", 20)
    assert StoreUnavailable.retryable


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A store URL that points into a file: an error of the store, not an OSError."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        open_store(f"file://{tmp_path}/file/store").probe()
