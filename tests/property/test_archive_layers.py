"""Laws of chains: the index loses nothing, and folding keeps chains short at a bounded cost."""

import math
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from node_agent.archive.errors import ArchiveCorrupt
from node_agent.archive.layers import (
    FOLD_RATIO,
    LAYER_BYTES_MIN,
    LAYERS_MAX,
    decode_index,
    encode_index,
    folded_from,
)

paths = st.binary(min_size=1, max_size=30).filter(lambda path: b"\0" not in path)
deaths = st.lists(st.frozensets(paths, max_size=5), max_size=5).map(lambda sets: dict(enumerate(sets)))
sizes = st.integers(1, 1 << 32)


@given(dead=deaths)
def test_an_index_reads_back_as_itself(dead: Mapping[int, frozenset[bytes]]) -> None:
    """Any name that a folder can hold, newlines and spaces too; every layer is named."""
    assert decode_index(encode_index(dead), len(dead)) == dead


@given(data=st.binary(max_size=100), layers=st.integers(0, 3))
def test_other_bytes_are_no_index(data: bytes, layers: int) -> None:
    """Either one clear error, or an index of this many layers."""
    with suppress(ArchiveCorrupt):
        assert set(decode_index(data, layers)) == set(range(layers))


@given(changes=st.lists(sizes, min_size=1, max_size=200))
def test_chains_stay_short_and_fall_in_size(changes: list[int]) -> None:
    """However much changes each time: few layers, each clearly larger than the next, none of them small."""
    live: list[int] = []
    for changed in changes:
        first = folded_from(live, live, changed)
        live = [*live[:first], sum(live[first:]) + changed]
        assert len(live) <= LAYERS_MAX
        for older, newer in pairwise(live):
            assert older > FOLD_RATIO * newer
            assert older > FOLD_RATIO * LAYER_BYTES_MIN


@given(count=st.integers(1, 300), changed=st.integers(1, 1 << 20), base=st.integers(1 << 24, 1 << 32))
def test_a_byte_is_written_again_a_few_times_only(count: int, changed: int, base: int) -> None:
    """A long row of small archives: all together write a logarithm's multiple of what changed."""
    live, written = [base], 0
    for _ in range(count):
        first = folded_from(live, live, changed)
        layer = sum(live[first:]) + changed
        live, written = [*live[:first], layer], written + layer
    grown = max(changed, LAYER_BYTES_MIN) * count
    assert written <= grown * (2 + math.log(2 + grown / LAYER_BYTES_MIN, 1.5)) + base * (grown / base * 2 + 1)


def test_one_changed_file_is_a_small_layer() -> None:
    """300 MB and one small change: the large layer stays as it is."""
    assert folded_from([300_000_000], [300_000_000], 20_000) == 1


def test_mostly_dead_layers_are_written_anew() -> None:
    """When the layers hold more dead bytes than the tree has living ones, the next layer is a full one."""
    assert folded_from([100_000_000], [210_000_000], 20_000) == 0


def test_a_small_tree_is_one_layer() -> None:
    """Below half a megabyte a chain is not worth its blobs."""
    assert folded_from([400_000], [400_000], 1) == 0
