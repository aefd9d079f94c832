"""Chains of layers: which members are dead, and when small layers are folded into the next one. Pure.

An archive's tree is the union of its layers' living members; no path lives in two of them. The index names
the dead ones: members that a later layer holds anew, or that are no longer in the tree. Its form is one
record `<layer number> <path>` for each, ended by a zero byte, all of it in one zstd frame.
"""

from collections.abc import Iterable, Mapping, Sequence

from node_agent.archive.errors import ArchiveCorrupt

INDEX_BYTES_MAX = 64 << 20
# A restore of a chain opens and decompresses this many blobs at most.
LAYERS_MAX = 24
# Layers of at most this size are not worth a blob of their own.
LAYER_BYTES_MIN = 256 << 10
# A layer is folded into the next if it is at most this many times as large: so sizes fall by this factor
# from layer to layer, their number grows with the logarithm of the size, and so does what a byte costs.
FOLD_RATIO = 2

Dead = Mapping[int, frozenset[bytes]]


def encode_index(dead: Mapping[int, Iterable[bytes]]) -> bytes:
    """The records by layer, then path: equal indexes have equal bytes."""
    return b"".join(b"%d %s\0" % (layer, path) for layer in sorted(dead) for path in sorted(dead[layer]))


def decode_index(data: bytes, layer_count: int) -> dict[int, frozenset[bytes]]:
    """Dead paths by layer, all named. Raises ArchiveCorrupt for what `encode_index` has not written."""
    dead: list[set[bytes]] = [set() for _ in range(layer_count)]
    *records, rest = data.split(b"\0")
    for record in records:
        number, space, path = record.partition(b" ")
        if not (space and path and number.isdigit() and int(number) < layer_count):
            raise ArchiveCorrupt(f"the archive's index has a record {record[:80]!r} that it cannot have")
        dead[int(number)].add(path)
    if rest:
        raise ArchiveCorrupt("the archive's index ends in the middle of a record")
    return {layer: frozenset(paths) for layer, paths in enumerate(dead)}


def folded_from(live_bytes: Sequence[int], tar_bytes: Sequence[int], changed_bytes: int) -> int:
    """The number of the oldest layer that the next one should hold anew; 0 asks for a full layer.

    `live_bytes` and `tar_bytes` are of the layers there are, oldest first, `changed_bytes` of what must be
    written anyway.
    """
    first, grown = len(live_bytes), max(changed_bytes, LAYER_BYTES_MIN)
    while first and (live_bytes[first - 1] <= FOLD_RATIO * grown or first >= LAYERS_MAX):
        first -= 1
        grown += live_bytes[first]
    kept_live, kept = sum(live_bytes[:first]), sum(tar_bytes[:first])
    # More dead than alive: a full layer costs less than has been written since the last one.
    return 0 if kept - kept_live > kept_live + grown else first
