"""How often a store on S3 is asked: a distant one makes each request as dear as the bytes."""

from pathlib import Path

import boto3
import pytest

from node_agent.s3_store import S3Store
from node_agent.store import StoreConflict
from tests.support.s3_servers import BUCKET, CREDENTIALS, moto_server, rclone_server


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def _asked(log: Path, before: int) -> list[str]:
    """The methods of the requests since the log was so long, as moto's log has them."""
    lines = log.read_bytes()[before:].decode().splitlines()
    return [line.partition('"')[2].split()[0] for line in lines if f"/{BUCKET}/" in line]


def test_a_store_that_refuses_by_itself_is_not_looked_at_before_each_write(tmp_path: Path) -> None:
    """One request for a small blob, one for a manifest, once a probe has seen that it keeps the condition."""
    log = tmp_path / "log"
    with moto_server(log) as endpoint:
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        store = S3Store(BUCKET, endpoint_url=endpoint)
        store.put_manifest("before", b"unknown yet")
        store.probe()
        length = log.stat().st_size
        with store.open_writer("blob") as writer:
            writer.write(b"bytes")
            writer.commit()
        store.put_manifest("manifest", b"whole")
        assert _asked(log, length) == ["PUT", "PUT"]

        with pytest.raises(StoreConflict):
            store.put_manifest("manifest", b"another")
        assert store.get("manifest", 100) == b"whole"


def test_a_store_that_would_write_over_is_looked_at_first(tmp_path: Path) -> None:
    """rclone's takes the condition and overwrites: what is there stays, because somebody looked."""
    with rclone_server(tmp_path / "root", tmp_path / "log") as endpoint:
        store = S3Store(BUCKET, endpoint_url=endpoint)
        assert not store.probe().conditional_put
        store.put_manifest("manifest", b"whole")

        with pytest.raises(StoreConflict):
            store.put_manifest("manifest", b"another")
        assert store.get("manifest", 100) == b"whole"
