"""Sites with faults in them: an S3 server behind a faulty front, a database behind a gate that cuts."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import boto3

from state.database import Database
from tests.support.faulty_s3 import FaultyS3, faulty_s3
from tests.support.s3_servers import ACCESS_KEY, BUCKET, CREDENTIALS, SECRET_KEY, moto_server
from tests.support.site import Site, two_nodes
from tests.support.tcp_gate import TcpGate, tcp_gate

# Of a request to the store, while faults rain; and how many until the sky clears, so that a round ends.
FAULTY_SHARE = 0.3
FAULTS_AT_A_TIME = 12
AWAY_S = 2.0
HELD_UP_S = 4.0


@contextmanager
def s3_store(root: Path) -> Iterator[tuple[dict[str, str], FaultyS3]]:
    """An S3 server behind a front that can be told what goes wrong; the environment of its agents."""
    with moto_server(root / "moto.log") as endpoint, faulty_s3(endpoint) as s3:
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(
            Bucket=BUCKET
        )
        yield {"CODEPODS_STORE_URL": f"s3://{BUCKET}?endpoint={s3.url}", **CREDENTIALS}, s3


@contextmanager
def behind_gate(database_url: str) -> Iterator[tuple[str, TcpGate]]:
    """A way to the database that can be cut; the connection string that goes through it."""
    port = urlsplit(database_url).port
    assert port is not None
    with tcp_gate(port) as gate:
        yield database_url.replace(f":{port}/", f":{gate.port}/"), gate


Faults = Mapping[str, Callable[[], None]]


@contextmanager
def plain_site(db: Database, database_url: str, root: Path) -> Iterator[tuple[Site, Faults]]:
    """Two nodes and a store in a directory, none of which is in a fault of itself."""
    with two_nodes(db, database_url, root) as site:
        yield site, {}


@contextmanager
def faulty_site(db: Database, database_url: str, root: Path) -> Iterator[tuple[Site, Faults]]:
    """Two nodes, all of whose ways can fail; and the faults of those ways, by name."""
    with s3_store(root) as (environment, s3), behind_gate(database_url) as (url, gate):

        def rain() -> None:
            s3.rain(time.time_ns(), FAULTY_SHARE, FAULTS_AT_A_TIME)

        def shut() -> None:
            with gate.shut():
                time.sleep(AWAY_S)

        def hold_up() -> None:
            with gate.held_up():
                time.sleep(HELD_UP_S)

        with two_nodes(db, url, root, environment) as site:
            yield (
                site,
                {
                    "store fails": rain,
                    "database connections cut": gate.cut,
                    "database out of reach": shut,
                    "database answers late": hold_up,
                },
            )
