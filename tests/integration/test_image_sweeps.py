"""Images and unknown pods in the store, from the database to the store and back: real chores, by hand."""

import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from node_agent.archive.image_store import read_image
from node_agent.open_store import open_store
from state.model import Limits
from tests.integration.test_store_chores import Installation
from tests.support.aged_store import AgedStore
from tests.support.control import Control
from tests.support.s3_servers import CREDENTIALS, moto_server
from tests.support.scripted_node import IMAGE_ID
from tests.support.stored_images import store_image

KEEP_ONE = Limits(archives_kept=1)
STRANGER = "archives/pod/p-nobodyknows1/1-1/manifest.json"


@pytest.fixture(scope="module")
def conditional_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that honours conditions."""
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as endpoint:
        yield endpoint


@pytest.fixture(params=["directory", "s3"])
def installation(
    request: pytest.FixtureRequest,
    control: Control,
    conditional_s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Installation:
    """With a pod that was put away twice, on either store."""
    aged = None
    if request.param == "s3":
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        bucket = f"pods-{secrets.token_hex(4)}"
        boto3.client("s3", endpoint_url=conditional_s3, region_name="us-east-1").create_bucket(Bucket=bucket)
        aged = AgedStore(open_store(f"s3://{bucket}/site?endpoint={conditional_s3}"))
        assert aged.probe().conditional_put
    installation = Installation(control, tmp_path / "store", aged)
    installation.put_away(2)
    return installation


def of_another_image(installation: Installation, which: str) -> str:
    """Some archives were made of an image that is of no pod; its id."""
    image_id = store_image(installation.store, '{"old":1}', b"base", b"old")
    rewrite(installation, which, image_id)
    return image_id


def rewrite(installation: Installation, which: str, image_id: str) -> None:
    """As if they had been made so."""
    with installation.control.db.transaction() as connection:
        connection.execute("ALTER TABLE archive DISABLE TRIGGER USER")
        connection.execute(f"UPDATE archive SET image_id = %s WHERE {which}", (image_id,))  # type: ignore[arg-type]
        connection.execute("ALTER TABLE archive ENABLE TRIGGER USER")


def many_looks(installation: Installation) -> None:
    """Some weeks."""
    for _ in range(5):
        installation.older(timedelta(days=2))
        installation.attend()


def test_the_image_of_retired_archives_goes_in_its_time(installation: Installation) -> None:
    """Not at the first look, nor while an export that has begun may still read the archive."""
    old = of_another_image(installation, "target_kind = 'pod' AND number = 1")
    installation.older(timedelta(days=10))
    installation.attend(KEEP_ONE)
    for _ in range(2):
        installation.older(timedelta(hours=30))
        installation.attend()
        assert read_image(installation.store, old) is not None
    many_looks(installation)
    assert read_image(installation.store, old) is None
    assert read_image(installation.store, IMAGE_ID) is not None
    assert len(installation.store.list("images/layers/")) == 1
    assert installation.alarms() == set()


def test_the_image_of_a_kept_archive_stays(installation: Installation) -> None:
    """One is enough, of a pod that is of another image by now."""
    old = of_another_image(installation, "target_kind = 'pod' AND number = 2")
    many_looks(installation)
    assert read_image(installation.store, old) is not None
    assert installation.alarms() == set()


def test_objects_of_a_pod_that_nobody_knows_are_told_left_and_stop_the_clearing_of_images(
    installation: Installation,
) -> None:
    """Absence is never an order to delete (LAW 9); once somebody has removed them, it goes on."""
    installation.attend(KEEP_ONE)
    old = of_another_image(installation, "target_kind = 'pod' AND retired_at IS NOT NULL")
    installation.store.put_manifest(STRANGER, b"{}")
    many_looks(installation)
    assert installation.alarms() == {"target_unknown"}
    assert installation.store.head(STRANGER) is not None
    assert read_image(installation.store, old) is not None

    installation.store.delete(STRANGER)
    many_looks(installation)
    many_looks(installation)
    assert installation.alarms() == set()
    assert read_image(installation.store, old) is None


def test_an_image_that_archives_need_and_the_store_has_not_raises_an_alarm(
    installation: Installation,
) -> None:
    """While somebody can still do something about it."""
    rewrite(installation, "target_kind = 'pod' AND number = 2", "sha256:" + "0" * 64)
    installation.older(timedelta(days=2))
    installation.attend()
    assert "image_missing" in installation.alarms()
