"""Ids and the shapes of names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state import ids

PATTERNS = [
    ids.USER_ID_PATTERN,
    ids.POD_NAME_PATTERN,
    ids.LAB_PATTERN,
    ids.IMAGE_PATTERN,
    ids.NODE_ID_PATTERN,
]


@pytest.mark.parametrize(
    ("new", "pattern"),
    [
        (ids.new_pod_id, ids.POD_ID_PATTERN),
        (ids.new_workspace_id, ids.WORKSPACE_ID_PATTERN),
        (ids.new_archive_id, ids.ARCHIVE_ID_PATTERN),
        (ids.new_token_id, ids.TOKEN_ID_PATTERN),
    ],
)
def test_new_ids_have_their_shape_and_do_not_repeat(new: object, pattern: str) -> None:
    """A thousand new ids are a thousand ids of the right shape."""
    assert callable(new)
    made = {new() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(pattern, one) for one in made)


@given(st.sampled_from(PATTERNS), st.text())
def test_no_shape_lets_anything_out_of_a_path_or_a_line(pattern: str, text: str) -> None:
    """Whatever fits a shape is printable ASCII without blanks, and begins like no path or option."""
    if re.search(pattern, text):
        assert text.isascii()
        assert text.rstrip("\n").isprintable()
        assert not text.startswith((".", "-", "/"))
        assert " " not in text


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "../etc", "a/b", "a b", "-rf", "ä", "a\nb", "a\x00b", "x" * 129, "%2e%2e"]
)
def test_user_ids_that_are_refused(bad: str) -> None:
    """Path tricks, blanks, unicode and overlong names are no user ids."""
    assert re.fullmatch(ids.USER_ID_PATTERN, bad) is None


@pytest.mark.parametrize(
    "good", ["alice", "a.b+c@example.org", "0b6e1c5e-7f0e-4d53-9c3a-1d9a6c5a8f11", "A_1"]
)
def test_user_ids_that_are_taken(good: str) -> None:
    """Account names, e-mail addresses and UUIDs are user ids."""
    assert re.fullmatch(ids.USER_ID_PATTERN, good)
