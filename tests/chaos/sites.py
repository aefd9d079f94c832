"""Sites with faults in them: an S3 server behind a faulty front, a database behind a gate that cuts."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
# What fails again and again here is tried again soon: nothing is found out by waiting.
BACKOFF_S_MAX = 5.0


@contextmanager
def s3_store(root: Path) -> Iterator[tuple[dict[str, str], FaultyS3]]:
    """An S3 server behind a front that can be told what goes wrong; the environment of its agents."""
    with moto_server(root / "moto.log") as endpoint, faulty_s3(endpoint) as s3:
        _make_bucket(endpoint)
        yield _store_at(s3.url), s3


def _make_bucket(endpoint: str) -> None:
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(Bucket=BUCKET)


def _store_at(endpoint: str) -> dict[str, str]:
    return {"CODEPODS_STORE_URL": f"s3://{BUCKET}?endpoint={endpoint}", **CREDENTIALS}


@contextmanager
def behind_gate(database_url: str) -> Iterator[tuple[str, TcpGate]]:
    """A way to the database that can be cut; the connection string that goes through it."""
    port = _port_of(database_url)
    with tcp_gate(port) as gate:
        yield database_url.replace(f":{port}/", f":{gate.port}/"), gate


Faults = Mapping[str, Callable[[], None]]


@contextmanager
def plain_site(db: Database, database_url: str, root: Path) -> Iterator[tuple[Site, Faults]]:
    """Two nodes and a store in a directory, none of which is in a fault of itself."""
    with two_nodes(db, database_url, root, backoff_max=BACKOFF_S_MAX) as site:
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

        with two_nodes(db, url, root, environment, backoff_max=BACKOFF_S_MAX) as site:
            yield (
                site,
                {
                    "store fails": rain,
                    "database connections cut": gate.cut,
                    "database out of reach": shut,
                    "database answers late": hold_up,
                },
            )


@dataclass
class Ways:
    """A site each of whose nodes reaches the control plane, and all of which reach the store, by a gate."""

    site: Site
    control: dict[str, TcpGate]
    store: TcpGate


@contextmanager
def gated_site(db: Database, database_url: str, root: Path, lease_s: float) -> Iterator[Ways]:
    """Two nodes with gates on their ways; a node that is quiet for `lease_s` is silent."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(moto_server(root / "moto.log"))
        _make_bucket(endpoint)
        store = stack.enter_context(tcp_gate(_port_of(endpoint)))
        environment = _store_at(f"http://127.0.0.1:{store.port}") | {"CODEPODS_AGENT_SYNC_WAIT_S": "1"}
        site = stack.enter_context(
            two_nodes(db, database_url, root, environment, node_silent_after=lease_s, backoff_max=2)
        )
        control = {}
        for agent in site.agents:
            gate = stack.enter_context(tcp_gate(_port_of(site.reconciler.url)))
            agent.begin_anew(gateway_url=f"http://127.0.0.1:{gate.port}")
            control[agent.node.node_id] = gate
        yield Ways(site, control, store)


def _port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
