"""What a downloaded image says that it lacks."""

import io
import json
import tarfile

import pytest

from api.podctl.oci_notes import OciNotes
from state.model import OCI_NOT_KEPT


def image(annotations: dict[str, str]) -> bytes:
    """An image's tar, as far as its notes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in (
            ("index.json", {"manifests": [{"digest": "sha256:aa"}]}),
            ("blobs/sha256/aa", {"annotations": annotations}),
        ):
            text = json.dumps(value).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("annotations", "said"), [({OCI_NOT_KEPT: "2 holes"}, "2 holes"), ({}, ""), ({"another": "note"}, "")]
)
def test_what_the_node_says_is_read_and_nothing_where_it_does_not(
    annotations: dict[str, str], said: str
) -> None:
    """A node of an older version has no such note; however the stream is cut into chunks."""
    notes = OciNotes()
    stream = image(annotations)
    for begin in range(0, len(stream), 700):
        notes.see(stream[begin : begin + 700])
    assert notes.not_kept() == said
