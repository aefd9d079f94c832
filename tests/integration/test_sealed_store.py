"""What is sealed stays sealed: without the master key nothing can be read, and nothing forged is taken."""

import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_agent.data_keys import DataKeys, scope_of
from node_agent.directory_store import DirectoryStore
from node_agent.master_keys import FileMasterKeys, new_key_file
from node_agent.open_store import open_masters, open_store, sealed
from node_agent.sealed_store import SealedStore
from node_agent.sealing import CHUNK_BYTES, SealBroken, opened_size, sealed_size
from node_agent.store import Store, StoreAccessDenied, StoreError, StoreUnavailable
from node_agent.uploads import UploadJournal
from tests.integration.test_store_resume import SOME_ARRIVED_MIB, blob, read, server, write
from tests.support.ports import free_port
from tests.support.s3_front import front_before
from tests.support.s3_servers import BUCKET, CREDENTIALS, moto_server

ROOT = Path(__file__).resolve().parents[2]
KEY = "archives/pod/p-1/3-5/tree.tar.zst"
SEQUENCE = itertools.count()
lawful = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Site:
    """A directory store and a key file, and the same store sealed for two users."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "store"
        self.key_file = folder / "master-keys.json"
        new_key_file(self.key_file, "first")
        self.plain = DirectoryStore(self.root)
        self.alice, self.bob = self.opened().of_user("alice"), self.opened().of_user("bob")

    def keys(self) -> DataKeys:
        """As an agent that has just been started has them."""
        return DataKeys(self.plain, FileMasterKeys(self.key_file))

    def opened(self) -> Store:
        """As an agent that has just been started opens it."""
        return SealedStore(self.plain, self.keys())

    def stored(self) -> Iterator[Path]:
        """All files in the store."""
        return (path for path in self.root.rglob("*") if path.is_file())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty one."""
    return Site(tmp_path)


def refused(store: Store, key: str) -> bool:
    """Whether nothing at all comes out: neither whole, nor as a stream to its end."""
    with pytest.raises(SealBroken):
        store.get(key, 10 * CHUNK_BYTES)
    with pytest.raises(SealBroken):
        read(store, key)
    return True


sizes = st.one_of(
    st.integers(0, 3000),
    st.builds(lambda chunks, off: max(0, chunks * CHUNK_BYTES + off), st.integers(0, 3), st.integers(-2, 2)),
)


@lawful
@given(size=sizes)
def test_sizes_are_those_of_what_is_inside(site: Site, size: int) -> None:
    """Head, receipt and content agree, around every chunk's edge; the sealed size is the one foretold."""
    key, data = f"archives/{next(SEQUENCE)}", os.urandom(size)
    with site.alice.open_writer(key) as writer:
        writer.write(data)
        receipt = writer.commit()
    assert (receipt.size_bytes, receipt.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert site.alice.head(key) == size == opened_size(sealed_size(size), key)
    assert (site.root / key).stat().st_size == sealed_size(size)
    assert read(site.opened(), key) == data == site.opened().get(key, size)


@lawful
@given(size=sizes, data=st.data())
def test_whatever_is_changed_is_refused(site: Site, size: int, data: st.DataObject) -> None:
    """A bit flipped, bytes cut off or added, chunks swapped or left out: nothing passes for the content."""
    key = f"archives/{next(SEQUENCE)}"
    write(site.alice, key, [os.urandom(size)])
    path = site.root / key
    whole = path.read_bytes()
    edge = 40 + CHUNK_BYTES + 28
    at = data.draw(st.one_of(st.integers(0, len(whole) - 1), st.sampled_from([0, 39, 40, len(whole) - 1])))
    forged = data.draw(
        st.sampled_from(
            [
                whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
                whole[:at],
                whole + b"\0",
                whole[:edge] if len(whole) > edge else whole[:-1],
                whole[:40] + whole[edge:] if len(whole) > edge else b"",
                whole[:40] + whole[edge : 2 * edge - 40] + whole[40:],
            ]
        )
    )
    if forged != whole:
        path.write_bytes(forged)
        assert refused(site.opened(), key)


def test_swapped_objects_are_refused(site: Site) -> None:
    """Another key of the same user, another user's object, another user's data key: each is found out."""
    keys = [f"archives/{number}" for number in range(3)]
    for key, store in zip(keys, (site.alice, site.alice, site.bob), strict=True):
        write(store, key, [b"same size"])
    paths = [site.root / key for key in keys]
    contents = [path.read_bytes() for path in paths]
    for one, other in itertools.permutations(range(3), 2):
        paths[one].write_bytes(contents[other])
        assert refused(site.opened(), keys[one])
        paths[one].write_bytes(contents[one])

    alices, bobs = (next((site.root / "keys" / scope_of(who).hex()).iterdir()) for who in ("alice", "bob"))
    shutil.copy(bobs, alices)
    assert refused(site.opened(), keys[0])


def test_the_bucket_alone_reveals_nothing(site: Site) -> None:
    """No stored file has a piece of the content, the user's name or a key; another master key opens none."""
    secret = b"the learner's secret, many times over. " * 50
    write(site.alice, KEY, [secret])
    site.alice.put_manifest("archives/pod/p-1/3-5/manifest.json", secret)
    masters = json.loads(site.key_file.read_text())["keys"].values()
    for path in site.stored():
        content = path.read_bytes()
        for known in (secret[:20], b"alice", *(base64.b64decode(key) for key in masters)):
            assert known not in content
    site.key_file.unlink()
    new_key_file(site.key_file, "first")
    assert refused(site.opened(), KEY)


def test_each_user_has_a_key_of_their_own(site: Site) -> None:
    """Removing one user's data keys makes theirs unreadable for good, and nobody else's."""
    write(site.alice, "archives/a", [b"hers"])
    write(site.bob, "archives/b", [b"his"])
    for key in site.plain.list(f"keys/{scope_of('alice').hex()}/"):
        site.plain.delete(key)
    assert refused(site.opened(), "archives/a")
    assert read(site.opened(), "archives/b") == b"his"


def test_racing_first_writers_of_a_user_all_can_be_read(site: Site) -> None:
    """Eight nodes make the user's first data key at once: whatever each took, everything opens."""
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        store = site.opened().of_user("carol")
        barrier.wait()
        write(store, f"archives/{number}", [b"%d" % number])

    racers = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [read(site.opened(), f"archives/{number}") for number in range(8)] == [b"%d" % n for n in range(8)]


def test_what_was_never_sealed_is_not_taken(site: Site) -> None:
    """Somebody puts a readable object where a sealed one belongs; labs and probes are readable on purpose."""
    site.plain.put_manifest(KEY, b"{}" * 100)
    assert refused(site.opened(), KEY)
    site.plain.put_manifest("labs/hello.tar", b"a lab")
    assert read(site.alice, "labs/hello.tar") == b"a lab"
    assert site.alice.head("labs/hello.tar") == len(b"a lab")


def rotate(site: Site) -> None:
    """As docs/encryption.md says, with the operators' command."""
    run_keys(site, "new", str(site.key_file), "second")
    run_keys(site, "rewrap")


def run_keys(site: Site, *words: str) -> str:
    """What codepods-store-keys says."""
    environment = {
        **os.environ,
        "CODEPODS_STORE_URL": f"file://{site.root}",
        "CODEPODS_STORE_KEY_FILE": str(site.key_file),
    }
    command = [sys.executable, "-m", "node_agent.store_keys", *words]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_after_a_rotation_the_old_master_key_may_go(site: Site) -> None:
    """Objects stay as they are; their data keys are wrapped anew, and the new master key alone opens them."""
    write(site.alice, KEY, [b"before"])
    write(site.bob, "archives/b", [b"his"])
    before = (site.root / KEY).read_bytes()
    rotate(site)
    assert run_keys(site, "status").split() == ["2", "second"]
    assert "0 of 2" in run_keys(site, "rewrap")
    content = json.loads(site.key_file.read_text())
    del content["keys"]["first"]
    site.key_file.write_text(json.dumps(content))
    assert read(site.opened(), KEY) == b"before"
    assert (site.root / KEY).read_bytes() == before


def test_a_master_key_that_is_missing_is_named(site: Site) -> None:
    """Whoever takes a master key away too early is told which one to put back."""
    write(site.alice, KEY, [b"x"])
    content = json.loads(site.key_file.read_text())
    site.key_file.write_text(json.dumps({"current": "other", "keys": {"other": content["keys"]["first"]}}))
    with pytest.raises(StoreAccessDenied, match="'first'"):
        read(site.opened(), KEY)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"current": "a", "keys": {}}', '{"current": "a", "keys": {"a": "AAAA"}}']
)
def test_a_key_file_that_is_none_is_refused_at_the_start(tmp_path: Path, content: str) -> None:
    """The message names the file and what belongs in it, and never a key."""
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(ValueError, match=r"keys\.json"):
        open_masters(tmp_path / "keys.json", None)


@pytest.fixture
def kms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of a key in a real KMS server."""
    with moto_server(tmp_path / "kms.log") as endpoint:
        for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", endpoint)
        yield boto3.client("kms").create_key()["KeyMetadata"]["KeyId"]


def test_a_kms_wraps_data_keys_and_takes_over_from_a_file(site: Site, kms: str) -> None:
    """Keys wrapped by the file still open; after a re-wrap the KMS alone is needed; a forgery is refused."""
    write(site.alice, KEY, [b"older"])
    both = sealed(site.plain, open_masters(site.key_file, kms))
    assert read(both, KEY) == b"older"
    write(both.of_user("dora"), "archives/d", [b"newer"])
    masters = open_masters(site.key_file, kms)
    assert masters is not None
    assert DataKeys(site.plain, masters).rewrap() == (1, 2)

    alone = sealed(site.plain, open_masters(None, kms))
    assert [read(alone, KEY), read(alone, "archives/d")] == [b"older", b"newer"]

    hers, doras = (next((site.root / "keys" / scope_of(who).hex()).iterdir()) for who in ("alice", "dora"))
    shutil.copy(doras, hers)
    with pytest.raises(StoreError):
        read(sealed(site.plain, open_masters(None, kms)), KEY)


def test_a_kms_that_is_away_is_a_retryable_error(
    site: Site, kms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written unsealed instead."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable):
        write(sealed(site.plain, open_masters(None, kms)), KEY, [b"x"])
    assert site.plain.list("archives/") == ()


def test_a_sealed_upload_goes_on_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealing the same content again gives the same bytes: kill -9, and only what is missing is sent."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    new_key_file(tmp_path / "keys.json", "first")
    with server("rclone", tmp_path) as endpoint, front_before(endpoint) as front:
        front.stall_after_bytes = SOME_ARRIVED_MIB << 20
        url, journal = f"s3://{BUCKET}/site?endpoint={front.url}", tmp_path / "journal"
        program = (
            "from pathlib import Path; from node_agent.open_store import *\n"
            "from node_agent.uploads import UploadJournal\n"
            "from tests.integration.test_store_resume import KEY, blob, write\n"
            f"store = open_store({url!r}, UploadJournal(Path({str(journal)!r})))\n"
            f"masters = open_masters(Path({str(tmp_path / 'keys.json')!r}), None)\n"
            "write(sealed(store, masters).of_user('alice'), KEY, blob())"
        )
        with subprocess.Popen([sys.executable, "-c", program]) as child:
            assert front.stalled.wait(60)
            child.kill()
        front.heal()
        masters = open_masters(tmp_path / "keys.json", None)
        write(sealed(open_store(url, UploadJournal(journal)), masters).of_user("alice"), KEY, blob())
        assert front.sent_bytes < sum(map(len, blob())) - (8 << 20) + (1 << 20)
        direct = sealed(open_store(f"s3://{BUCKET}/site?endpoint={endpoint}"), masters)
        assert read(direct, KEY) == b"".join(blob())


def test_the_documented_recipe_opens_an_object(site: Site, tmp_path: Path) -> None:
    """docs/encryption.md: Python and `cryptography` alone, none of our code."""
    document = (ROOT / "docs" / "encryption.md").read_text()
    [recipe] = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    (tmp_path / "open_sealed.py").write_text(recipe)
    data = os.urandom(2 * CHUNK_BYTES + 77)
    write(site.alice, KEY, [data])
    out = tmp_path / "out"
    command = [sys.executable, "-I", "open_sealed.py", str(site.key_file), str(site.root), KEY, str(out)]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert out.read_bytes() == data
