"""Laws of the manifest: one text for one archive, and nothing else is taken for a manifest."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.archive import manifest as manifests
from node_agent.archive.errors import ManifestInvalid
from node_agent.archive.manifest import INDEX_ZSTD, BlobRef, Manifest, blob_key, manifest_key
from node_agent.store import check_key
from state.model import TargetKind

identifiers = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
counts = st.integers(0, 2**62)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
kinds = st.sampled_from(TargetKind)
keys = st.builds(blob_key, kinds, identifiers, counts, counts, st.sampled_from(["tree.tar.zst", "a_1"]))
layers = st.builds(
    BlobRef, key=keys, size_bytes=counts, sha256=digests, tar_bytes=counts, live_bytes=st.none() | counts
)
indexes = st.builds(
    BlobRef,
    key=keys,
    size_bytes=counts,
    sha256=digests,
    tar_bytes=counts,
    media_type=st.just(INDEX_ZSTD),
    role=st.just("index"),
)
chains = st.builds(
    lambda found, index: (*found, index) if index and found else tuple(found[:1]),
    st.lists(layers, min_size=1, max_size=3),
    st.none() | indexes,
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
made = st.builds(
    Manifest,
    kind=kinds,
    target_id=identifiers,
    user_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50),
    epoch=counts,
    attempt=counts,
    number=counts,
    created_at=st.integers(0, 10**16).map(
        lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    ),
    fingerprint=st.dictionaries(texts, texts, max_size=3),
    image_id=st.none() | texts,
    image_ref=st.none() | texts,
    method=st.sampled_from(["overlay2-upper", "volume"]),
    blobs=chains,
    entries=counts,
    tree=st.none() | digests,
    notices=st.lists(texts, max_size=3).map(tuple),
)


@given(manifest=made)
def test_a_manifest_reads_back_as_itself(manifest: Manifest) -> None:
    """Writing and reading loses nothing, and the bytes are canonical: written again, they are the same."""
    data = manifests.to_bytes(manifest)
    assert manifests.parse(data) == manifest
    assert manifests.to_bytes(manifests.parse(data)) == data
    assert data.isascii()


@given(one=made, other=made)
def test_digests_tell_manifests_apart(one: Manifest, other: Manifest) -> None:
    """Equal manifests and only those have equal digests."""
    digests_equal = manifests.digest(manifests.to_bytes(one)) == manifests.digest(manifests.to_bytes(other))
    assert digests_equal == (one == other)


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_other_bytes_are_no_manifest(data: bytes) -> None:
    """Whatever is there, the answer is one clear error."""
    with pytest.raises(ManifestInvalid):
        manifests.parse(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(manifest=made, data=st.data())
def test_a_changed_field_is_refused_or_seen(manifest: Manifest, data: st.DataObject) -> None:
    """A field with another value: either ManifestInvalid, or a manifest that is not the one before."""
    fields = json.loads(manifests.to_bytes(manifest))
    name = data.draw(st.sampled_from(sorted(fields)))
    value = data.draw(json_values.filter(lambda value: value != fields[name]))
    changed = json.dumps({**fields, name: value}).encode()
    with suppress(ManifestInvalid):
        assert manifests.parse(changed) != manifest


@given(manifest=made, data=st.data())
def test_a_missing_or_unknown_field_is_refused(manifest: Manifest, data: st.DataObject) -> None:
    """Strict in both directions: a field that this version does not know might matter."""
    fields = json.loads(manifests.to_bytes(manifest))
    with pytest.raises(ManifestInvalid, match="surprise"):
        manifests.parse(json.dumps({**fields, "surprise": 1}).encode())
    name = data.draw(
        st.sampled_from(["format", "kind", "epoch", "blobs", "fingerprint", "method", "entries"])
    )
    with pytest.raises(ManifestInvalid):
        manifests.parse(json.dumps({key: fields[key] for key in fields if key != name}).encode())


@given(manifest=made, version=st.integers(manifests.FORMAT + 1, 2**70))
def test_a_newer_format_asks_for_an_upgrade(manifest: Manifest, version: int) -> None:
    """The message says which format it is, and to upgrade."""
    fields = json.loads(manifests.to_bytes(manifest))
    with pytest.raises(ManifestInvalid, match=f"format {version}.*[Uu]pgrade"):
        manifests.parse(json.dumps({**fields, "format": version}).encode())


FORMAT_1 = (
    b'{"attempt":5,"blobs":[{"key":"archives/workspace/w-1/3-5/tree.tar.zst","media_type":"application/x-tar'
    b'+zstd","role":"tree","sha256":"' + b"0" * 64 + b'","size_bytes":9,"tar_bytes":10240}],"created_at":'
    b'"2026-01-02T03:04:05Z","entries":1,"epoch":3,"fingerprint":{"tree":"f"},"format":1,"image_id":null,'
    b'"image_ref":null,"kind":"workspace","method":"volume","notices":[],"number":1,"target_id":"w-1",'
    b'"user_id":"alice"}\n'
)


def test_archives_of_format_1_are_still_read() -> None:
    """What the first release wrote: one layer, all of it alive; written again, the same bytes."""
    manifest = manifests.parse(FORMAT_1)
    assert len(manifest.layers) == 1
    assert manifest.index is None
    assert manifests.to_bytes(manifest) == FORMAT_1


@given(manifest=made)
def test_an_index_belongs_to_a_chain(manifest: Manifest) -> None:
    """Several layers without an index, an index that is not last, an index alone: no manifest."""
    fields = json.loads(manifests.to_bytes(manifest))
    layer = {**fields["blobs"][0], "key": "archives/pod/p/1-1/more"}
    index = {**layer, "role": "index", "media_type": INDEX_ZSTD}
    for blobs in ([layer, layer], [index, layer], [index], [layer, index, index], []):
        with pytest.raises(ManifestInvalid):
            manifests.parse(json.dumps({**fields, "blobs": blobs}).encode())


def test_an_oversized_manifest_is_not_parsed() -> None:
    """Beyond 50 MB nothing is read."""
    with pytest.raises(ManifestInvalid, match="at most"):
        manifests.parse(b" " * (manifests.MANIFEST_BYTES_MAX + 1))


def test_a_manifest_cannot_point_out_of_the_store() -> None:
    """A blob key with path tricks makes the whole manifest invalid."""
    fields = {
        "format": 1,
        "kind": "workspace",
        "target_id": "w",
        "user_id": "u",
        "epoch": 1,
        "attempt": 1,
        "number": 1,
        "created_at": "2026-01-02T03:04:05Z",
        "fingerprint": {},
        "method": "volume",
        "entries": 1,
        "blobs": [{"key": "../../etc/shadow", "size_bytes": 1, "sha256": "0" * 64, "tar_bytes": 1}],
    }
    with pytest.raises(ManifestInvalid, match="blobs"):
        manifests.parse(json.dumps(fields).encode())


@given(kind=kinds, target=identifiers, one=st.tuples(counts, counts), other=st.tuples(counts, counts))
def test_attempts_never_share_a_key(
    kind: TargetKind, target: str, one: tuple[int, int], other: tuple[int, int]
) -> None:
    """Keys carry epoch and attempt, and every store takes them."""
    assert (manifest_key(kind, target, *one) == manifest_key(kind, target, *other)) == (one == other)
    assert check_key(manifest_key(kind, target, *one)).startswith(f"archives/{kind}/{target}/")
