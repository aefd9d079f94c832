"""What a cut write costs the next one: only what is missing. On real servers, counted on the wire."""

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import pytest

from node_agent.archive.commit import write_archive
from node_agent.archive.restore import restore_archive
from node_agent.open_store import open_store
from node_agent.s3_target import PART_BYTES
from node_agent.store import Store, StoreConflict, StoreUnavailable
from node_agent.uploads import UploadJournal
from tests.support.archive_requests import REQUEST as OF_A_WORKSPACE
from tests.support.patience import until
from tests.support.s3_front import Front, front_before
from tests.support.s3_servers import BUCKET, CREDENTIALS, moto_server, rclone_server
from tests.support.trees import differences, snapshot

MIB = 1 << 20
KEY, LATER, NEXT_EPOCH = (f"archives/pod/p-1/{number}/tree.tar.zst" for number in ("3-5", "3-6", "4-6"))
BLOB_MIB = 44
# Four parts are on their way at a time: once more than four have passed, one has arrived.
SOME_ARRIVED_MIB = 33
SEQUENCE = itertools.count()
# Requests' heads, and the parts that were on their way.
HEADS_BYTES = MIB // 4

ANSWER_200_WITH_ERROR = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: 121\r\nConnection: close\r\n\r\n"
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code><Message>try again</Message>'
    b"</Error>" + b" " * 14
)
ANSWER_409 = (
    b"HTTP/1.1 409 Conflict\r\nContent-Type: application/xml\r\nContent-Length: 105\r\n"
    b"Connection: close\r\n\r\n"
    b"<Error><Code>ConditionalRequestConflict</Code><Message>meanwhile</Message></Error>" + b" " * 23
)


@dataclass
class Site:
    """A part of a real S3 server's bucket, behind a front, and the journal of one node."""

    front: Front
    endpoint: str
    prefix: str
    journal_dir: Path

    @property
    def url(self) -> str:
        """Through the front."""
        return f"s3://{BUCKET}/{self.prefix}?endpoint={self.front.url}"

    @property
    def direct(self) -> Store:
        """Beside the front, and without a journal."""
        return open_store(f"s3://{BUCKET}/{self.prefix}?endpoint={self.endpoint}")

    def store(self) -> Store:
        """As an agent opens it after a start."""
        return open_store(self.url, UploadJournal(self.journal_dir))


@pytest.fixture(scope="module", params=["moto", "rclone"])
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Each server in turn, with the bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with server(request.param, tmp_path_factory.mktemp("s3")) as url:
            yield url


@pytest.fixture
def site(endpoint: str, tmp_path: Path) -> Iterator[Site]:
    """A part of the bucket that no other test uses."""
    with front_before(endpoint) as front:
        yield Site(front, endpoint, f"site{next(SEQUENCE)}", tmp_path / "journal")


@contextmanager
def server(kind: str, folder: Path) -> Iterator[str]:
    """The endpoint of a server with the bucket."""
    if kind == "rclone":
        with rclone_server(folder / "root", folder / "log") as endpoint:
            yield endpoint
    else:
        with moto_server(folder / "log") as endpoint:
            boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
            yield endpoint


def blob(size_mib: int = BLOB_MIB) -> list[bytes]:
    """The same bytes each time, in chunks of a MiB."""
    source = random.Random(7)
    return [source.randbytes(MIB) for _ in range(size_mib)]


def write(store: Store, key: str, chunks: list[bytes]) -> None:
    """Write a whole blob."""
    with store.open_writer(key) as writer:
        for chunk in chunks:
            writer.write(chunk)
        writer.commit()


def read(store: Store, key: str) -> bytes:
    """Read a whole blob."""
    with store.open_reader(key) as chunks:
        return b"".join(chunks)


def killed_in_mid_part(site: Site) -> None:
    """kill -9 of a process that writes the blob, while a part is on its way."""
    site.front.stall_after_bytes = SOME_ARRIVED_MIB * MIB
    program = (
        "from pathlib import Path; from node_agent.open_store import open_store\n"
        "from node_agent.uploads import UploadJournal\n"
        "from tests.integration.test_store_resume import KEY, blob, write\n"
        f"write(open_store({site.url!r}, UploadJournal(Path({str(site.journal_dir)!r}))), KEY, blob())"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as child:
        assert site.front.stalled.wait(60)
        child.kill()
    site.front.wait_until_served()
    site.front.heal()


def arrived_bytes(site: Site) -> int:
    """The parts that the server has of unfinished uploads."""
    client = boto3.client("s3", endpoint_url=site.endpoint, region_name="us-east-1")
    uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{site.prefix}/").get("Uploads", [])
    parts = [
        part
        for upload in uploads
        for part in client.list_parts(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"]).get(
            "Parts", []
        )
    ]
    return sum(part["Size"] for part in parts)


@pytest.mark.parametrize("key", [KEY, LATER])
def test_after_a_kill_only_missing_parts_are_sent(site: Site, key: str) -> None:
    """kill -9 in mid-part; the next run, also as a later attempt, sends what had not arrived, and no more."""
    killed_in_mid_part(site)
    arrived = arrived_bytes(site)
    assert arrived >= PART_BYTES

    write(site.store(), key, blob())

    assert site.front.sent_bytes <= BLOB_MIB * MIB - arrived + HEADS_BYTES
    assert read(site.direct, key) == b"".join(blob())
    assert site.direct.list("") == (key,)
    assert arrived_bytes(site) == 0


def test_another_epoch_never_goes_on_with_a_half(site: Site) -> None:
    """LAW 5: what was sent for one placement is nothing to the next."""
    killed_in_mid_part(site)
    arrived = arrived_bytes(site)

    write(site.store(), NEXT_EPOCH, blob())

    assert site.front.sent_bytes >= BLOB_MIB * MIB
    assert site.direct.list("") == (NEXT_EPOCH,)
    assert arrived_bytes(site) == arrived


def test_parts_that_differ_are_sent_again(site: Site) -> None:
    """The source changed since: what is committed is the new content, to the byte.

    rclone takes no other bytes for a part that it has: there the first try fails, and the next begins anew.
    """
    killed_in_mid_part(site)
    changed = blob()
    changed[10] = os.urandom(MIB)

    with suppress(StoreUnavailable):
        write(site.store(), KEY, changed)
    write(site.store(), KEY, changed)

    assert read(site.direct, KEY) == b"".join(changed)


def test_a_store_that_goes_away_costs_only_what_is_missing(site: Site) -> None:
    """The write fails as one to be tried again; the next attempt goes on from the parts that are there."""
    journal = UploadJournal(site.journal_dir)
    site.front.cut_after_bytes = SOME_ARRIVED_MIB * MIB
    with pytest.raises(StoreUnavailable):
        write(open_store(site.url, journal), KEY, blob())
    # Its other parts are tried to their end: one that came through afterwards would be counted twice.
    until(lambda: is_released(journal, KEY), else_="parts of a write that has failed are still being sent")
    site.front.heal()
    arrived = arrived_bytes(site)
    assert arrived >= PART_BYTES

    write(site.store(), LATER, blob())

    assert site.front.sent_bytes <= BLOB_MIB * MIB - arrived + HEADS_BYTES
    assert read(site.direct, LATER) == b"".join(blob())


def is_released(journal: UploadJournal, key: str) -> bool:
    """Whether nobody writes there any more."""
    claim = journal.claim(key)
    kept = claim.kept
    claim.release()
    return kept


def test_an_upload_that_the_store_has_dropped_is_begun_anew(site: Site) -> None:
    """Somebody's rule for unfinished uploads, or a full disk: the bucket is there, and waiting helps."""
    with pytest.raises(StoreUnavailable):
        write_and_lose_the_upload(site)

    write(site.store(), KEY, blob())

    assert read(site.direct, KEY) == b"".join(blob())


def write_and_lose_the_upload(site: Site) -> None:
    """The store's owner drops it midway."""
    client = boto3.client("s3", endpoint_url=site.endpoint, region_name="us-east-1")
    with site.store().open_writer(KEY) as writer:
        for chunk in blob(20):
            writer.write(chunk)
        for upload in client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{site.prefix}/")["Uploads"]:
            client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
        for chunk in blob()[20:]:
            writer.write(chunk)
        writer.commit()


@pytest.mark.parametrize("key", [KEY, LATER])
def test_a_crash_right_after_the_last_request_sends_nothing_again(site: Site, key: str) -> None:
    """The blob is there, and the journal does not know: it is compared, and taken over under this attempt."""
    killed_in_mid_part(site)
    [note] = site.journal_dir.glob("*.json")
    content = note.read_bytes()
    write(site.store(), KEY, blob())
    note.write_bytes(content)
    site.front.heal()

    write(site.store(), key, blob())

    assert site.front.sent_bytes < HEADS_BYTES
    assert site.direct.list("") == (key,)
    assert read(site.direct, key) == b"".join(blob())


def test_a_late_copy_of_an_older_attempt_leaves_the_newer_half_alone(site: Site) -> None:
    """It begins anew under its own key, and the newer attempt still finds its parts."""
    killed_in_mid_part(site)
    arrived = arrived_bytes(site)
    older = KEY.replace("3-5", "3-4")

    write(site.store(), older, blob())
    site.front.heal()
    write(site.store(), KEY, blob())

    assert site.front.sent_bytes <= BLOB_MIB * MIB - arrived + HEADS_BYTES
    assert site.direct.list("") == (older, KEY)


@pytest.mark.parametrize("answer", [None, ANSWER_200_WITH_ERROR], ids=["lost", "200 with an error inside"])
def test_a_last_request_whose_answer_is_lost_or_lies_is_found_out(site: Site, answer: bytes | None) -> None:
    """S3 may complete and not say so, or say 200 and mean an error: what is there decides."""
    site.front.answers = [answer]
    write(site.store(), KEY, blob(20))
    assert site.front.answers == []
    assert read(site.direct, KEY) == b"".join(blob(20))


def test_a_conflict_of_the_last_request_is_tried_again_from_the_start(site: Site) -> None:
    """409 from CompleteMultipartUpload: nothing is committed, and the next try succeeds."""
    site.front.answers = [ANSWER_409] * 3
    with pytest.raises(StoreUnavailable):
        write(site.store(), KEY, blob(20))
    site.front.answers = []
    assert site.direct.head(KEY) is None
    write(site.store(), KEY, blob(20))
    assert read(site.direct, KEY) == b"".join(blob(20))


def test_somebody_elses_blob_stands(site: Site) -> None:
    """Two uploads of one key at once: the second to finish learns of the first and replaces nothing."""
    writer = site.direct.open_writer(KEY)
    writer.write(bytes(20 * MIB))
    write(site.direct, KEY, blob(20))
    with pytest.raises(StoreConflict):
        writer.commit()
    assert read(site.direct, KEY) == b"".join(blob(20))


def test_a_directory_store_goes_on_where_the_draft_ends(tmp_path: Path) -> None:
    """kill -9 of a writer: the retry writes the rest of the draft, and no byte twice."""
    url, journal = f"file://{tmp_path}/store", UploadJournal(tmp_path / "journal")
    program = (
        "import time; from pathlib import Path; from node_agent.open_store import open_store\n"
        "from node_agent.uploads import UploadJournal\n"
        "from tests.integration.test_store_resume import KEY, blob\n"
        f"writer = open_store({url!r}, UploadJournal(Path({str(tmp_path / 'journal')!r}))).open_writer(KEY)\n"
        "for chunk in blob(30): writer.write(chunk)\n"
        "print('written', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"written\n"
        child.kill()
    store, before = open_store(url, journal), written_bytes()

    write(store, LATER, blob())

    assert written_bytes() - before < (BLOB_MIB - 30) * MIB + HEADS_BYTES
    assert read(store, LATER) == b"".join(blob())
    assert list((tmp_path / "store" / ".incoming").iterdir()) == []


def written_bytes() -> int:
    """All that this process has handed to the kernel so far."""
    counted = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counted["wchar"])


def test_a_damaged_journal_costs_a_whole_write_and_nothing_else(tmp_path: Path) -> None:
    """Whatever is in its files, writing works."""
    journal = UploadJournal(tmp_path / "journal")
    journal.remember(KEY, "../../etc/passwd")
    store = open_store(f"file://{tmp_path}/store", journal)
    write(store, KEY, blob(10))
    for content in (b"", b"[]", b"{", b'{"version": 1}', b'{"version": 9, "key": "a"}', b"\xff"):
        journal.remember(LATER, "0" * 32)
        [note] = (tmp_path / "journal").glob("*.json")
        note.write_bytes(content)
        write(store, KEY, blob(10))
    assert read(store, KEY) == b"".join(blob(10))


def strange_tree(folder: Path) -> Path:
    """Files that do not compress, a hole, links and attributes: all that tar has a header of its own for."""
    source = random.Random(9)
    (folder / "deep").mkdir(parents=True)
    for number in range(BLOB_MIB):
        (folder / "deep" / f"{number:03}").write_bytes(source.randbytes(MIB))
    with (folder / "a hole").open("wb") as file:
        file.truncate(50 * MIB)
    (folder / "deep" / "hard").hardlink_to(folder / "a hole")
    (folder / "deep" / ("long" * 50)).symlink_to("x" * 150)
    os.setxattr(folder / "deep" / "001", "user.note", b"kept")
    return folder


REQUEST = replace(OF_A_WORKSPACE, epoch=3, attempt=5)


def test_an_archive_goes_on_where_it_was_cut(site: Site, tmp_path: Path) -> None:
    """kill -9 of an archiving agent in mid-part: a later attempt saves the same tree for what is missing."""
    source = strange_tree(tmp_path / "source")
    site.front.stall_after_bytes = SOME_ARRIVED_MIB * MIB
    program = (
        "from pathlib import Path; from node_agent.open_store import open_store\n"
        "from node_agent.archive.commit import write_archive\n"
        "from node_agent.uploads import UploadJournal\n"
        "from tests.integration.test_store_resume import REQUEST\n"
        f"store = open_store({site.url!r}, UploadJournal(Path({str(site.journal_dir)!r})))\n"
        f"write_archive(store, REQUEST, Path({str(source)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as child:
        assert site.front.stalled.wait(60)
        child.kill()
    site.front.wait_until_served()
    site.front.heal()
    arrived = arrived_bytes(site)
    assert arrived >= PART_BYTES

    made = write_archive(site.store(), replace(REQUEST, attempt=6), source)

    assert site.front.sent_bytes <= made.manifest.size_bytes - arrived + HEADS_BYTES
    (tmp_path / "target").mkdir()
    restore_archive(site.direct, made.manifest, tmp_path / "target")
    assert differences(snapshot(source), snapshot(tmp_path / "target")) == []
