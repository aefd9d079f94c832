"""Labels and names: what is written is what is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent import labels

WORDS = st.text(min_size=1, max_size=40)
COUNTS = st.integers(0, 2**53)


@given(st.builds(labels.PodLabels, WORDS, WORDS, WORDS, WORDS, COUNTS, COUNTS, st.text(), st.text()))
def test_pod_labels_are_read_as_written(written: labels.PodLabels) -> None:
    """Every pod's labels survive the engine."""
    assert labels.read_pod(written.as_labels()) == written


@given(st.dictionaries(st.sampled_from([labels.POD, labels.EPOCH, labels.NODE, "x"]), st.text(max_size=5)))
def test_what_is_not_ours_is_unreadable_and_nothing_worse(found: dict[str, str]) -> None:
    """Strange labels are said to be unreadable."""
    with pytest.raises(labels.Unreadable):
        labels.read_pod(found)


@pytest.mark.parametrize("epoch", ["", "-1", "1.5", "one", "²", "9" * 30])
def test_an_epoch_that_is_no_number_is_unreadable(epoch: str) -> None:
    """The message names the label."""
    found = labels.VolumeLabels("u", "w", "n", 1).as_labels() | {labels.EPOCH: epoch}
    with pytest.raises(labels.Unreadable, match=r"codepods\.epoch"):
        labels.read_volume(found)


def test_a_partial_name_is_never_a_whole_one() -> None:
    """Half-made containers are told apart by name."""
    assert labels.is_partial(labels.partial_name("p-1", 2, 3))
    assert not labels.is_partial(labels.container_name("p-1", 2))
