"""What the API takes: the shapes of user-given values."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from api import values, wire
from state import ids

PATTERNS = (
    (values.User, ids.USER_ID_PATTERN),
    (values.Name, ids.POD_NAME_PATTERN),
    (values.Lab, ids.LAB_PATTERN),
    (values.Image, ids.IMAGE_PATTERN),
    (values.PodId, ids.POD_ID_PATTERN),
    (values.NodeId, ids.NODE_ID_PATTERN),
)


def _accepts(kind: object, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("kind", "pattern"), PATTERNS)
@given(data=st.data())
def test_the_database_takes_whatever_the_api_takes(kind: object, pattern: str, data: st.DataObject) -> None:
    """A value that the API lets through never fails on a CHECK of the database."""
    shape = TypeAdapter(kind).json_schema()["pattern"]
    text = data.draw(st.from_regex(shape, fullmatch=True) | st.text(max_size=20))

    assert not _accepts(kind, text) or re.search(pattern.removesuffix("$") + r"\Z", text)


@given(st.text(max_size=80))
def test_names_made_from_labs_are_names(lab: str) -> None:
    """Whatever a lab is called, the pod's name that follows from it is allowed."""
    assert _accepts(values.Name, wire.name_for_lab(lab))


@pytest.mark.parametrize(
    "user",
    [
        "", ".", "..", "../alice", "alice/..", "a/b", "a\\b", "-alice", ".alice", "a b", "a\n", "a\x00",
        "ålice", "аlice", "alice\u202e", "a" * 129, "a" * 10_240,
        "%2e%2e", "a;b", "$(id)", "<a>", "a'b", 'a"b',
    ],
)  # fmt: skip
def test_user_ids_with_tricks_are_refused(user: str) -> None:
    """Nothing that could leave a path, a shell word, or a header, or look like another user, is one."""
    assert not _accepts(values.User, user)


@pytest.mark.parametrize("user", ["alice", "a", "A1", "alice@example.org", "7f9c-4a", "a.b_c+d-e", "a" * 128])
def test_ordinary_user_ids_are_taken(user: str) -> None:
    """Account names, e-mail addresses and UUIDs are user ids."""
    assert _accepts(values.User, user)


@pytest.mark.parametrize(
    "image",
    [
        "debian:bookworm-slim", "codepods/pod:latest",
        "localhost:5000/a/b:1",
        "registry.example.org/o/i@sha256:" + "0" * 64, "a", "registry.example.org/team_x/image__y.z-1:v1.0_a",
    ],
)  # fmt: skip
def test_image_references_are_taken(image: str) -> None:
    """Every form of reference that Docker pulls by is taken."""
    assert _accepts(values.Image, image)


@pytest.mark.parametrize(
    "image",
    ["", "codepods/UPPER", "a:", "a@sha256:12", "a b", "-a", "a/../b", "a//b", "--privileged", "a" * 401],
)
def test_what_is_no_image_reference_is_refused(image: str) -> None:
    """What Docker could not pull, or would read as an option, is refused."""
    assert not _accepts(values.Image, image)


@pytest.mark.parametrize(
    ("lab", "name"), [("hello", "hello"), ("Intro_To.Go", "intro-to-go"), ("x" * 63, "x" * 40), ("0-", "0")]
)
def test_the_pod_is_named_after_its_lab(lab: str, name: str) -> None:
    """A pod with no name of its own is named after its lab, as far as names allow."""
    assert wire.CreatePod(user="alice", lab=lab).pod_name == name


def test_a_pod_without_name_and_lab_is_the_default_one() -> None:
    """A user needs to name nothing to get a pod."""
    assert wire.CreatePod(user="alice").pod_name == "default"
