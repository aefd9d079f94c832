"""What changed since an archive was made of this very tree, and so what the next layer has to hold."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.archive.layers import folded_from
from node_agent.archive.records import Record, Writer, member_name, order, read_records, writing

_CHANGED = 0xFFFF


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """`kept` layers of the base stay, oldest first, with about `live_bytes` each and these `dead` members.
    `resent` counts the entries that the next layer holds; a file lists them, another where all are then."""

    kept: int
    live_bytes: tuple[int, ...]
    dead: Mapping[int, frozenset[bytes]]
    resent: int
    resent_bytes: int
    members: Path
    records: Path


def plan_layer(
    scanned: Path,
    base: Path,
    tar_bytes: Sequence[int],
    dead: Mapping[int, frozenset[bytes]],
    folder: Path,
    *,
    one_layer: bool = False,
) -> LayerPlan | None:
    """Compare the records of a scan with those of the base, an archive with layers of these sizes and dead
    members; `one_layer`: it has been compacted since they were taken down. None asks for a full layer.

    Writes its files into `folder`. Raises OSError, and ValueError for records that cannot be read.
    """
    found = _compare(scanned, base, len(tar_bytes), one_layer=one_layer)
    kept = folded_from(found.live_bytes, tar_bytes, found.changed_bytes) if found.any else len(tar_bytes)
    if kept == 0:
        return None
    if kept < len(tar_bytes) or found.changed_links:
        _mark_resent(scanned, found, kept)
    return _write(scanned, found, kept, dead, folder)


@dataclass(slots=True)
class _Found:
    """`layers` has the place of each scanned entry, in order; the rest is what was found on the way."""

    layers: "array[int]"
    live_bytes: list[int]
    changed_bytes: int = 0
    # Of files with several names: the names go together, into one layer.
    changed_links: set[int] = field(default_factory=set)
    gone: list[tuple[int, bytes]] = field(default_factory=list)
    folders: set[bytes] = field(default_factory=set)

    @property
    def any(self) -> bool:
        """Whether anything is not as it was."""
        return bool(self.changed_bytes or self.gone)


def _compare(scanned: Path, base: Path, layer_count: int, *, one_layer: bool) -> _Found:
    found = _Found(array("H"), [0] * layer_count)
    for now, before in _paired(read_records(scanned), read_records(base)):
        layer = 0 if before is None or one_layer else before.layer
        if now is not None and before is not None and now.told == before.told:
            found.layers.append(layer)
            found.live_bytes[layer] += now.weight
            continue
        if before is not None:
            found.gone.append((layer, member_name(before.path)))
        if now is not None:
            found.layers.append(_CHANGED)
            found.changed_bytes += now.weight
            found.changed_links.add(now.link)
            _add_folders(found.folders, now.path)
    found.changed_links.discard(0)
    return found


def _paired(
    scanned: Iterator[Record], base: Iterator[Record]
) -> Iterator[tuple[Record | None, Record | None]]:
    """Records of the same path side by side, in the order of both; None where one has no such path."""
    now, before = next(scanned, None), next(base, None)
    while now or before:
        first = _first(now, before)
        yield (now if first <= 0 else None), (before if first >= 0 else None)
        if first <= 0:
            now = next(scanned, None)
        if first >= 0:
            before = next(base, None)


def _first(now: Record | None, before: Record | None) -> int:
    """Negative if `now` comes first in a scan, positive if `before` does, 0 for the same path."""
    if now is None or before is None:
        return -1 if now else 1
    if now.told == before.told:
        return 0
    mine, theirs = order(now.path), order(before.path)
    return (mine > theirs) - (mine < theirs)


def _mark_resent(scanned: Path, found: _Found, kept: int) -> None:
    """What goes with what changed: folded layers, other names of changed files; and the folders above."""
    for place, record in enumerate(read_records(scanned)):
        layer = found.layers[place]
        if layer != _CHANGED and (layer >= kept or record.link in found.changed_links):
            found.gone.append((layer, member_name(record.path)))
            found.layers[place] = _CHANGED
            _add_folders(found.folders, record.path)


def _add_folders(folders: set[bytes], path: bytes) -> None:
    while path != b".":
        path = path.rpartition(b"/")[0] or b"."
        if path in folders:
            return
        folders.add(path)


def _write(
    scanned: Path, found: _Found, kept: int, dead: Mapping[int, frozenset[bytes]], folder: Path
) -> LayerPlan:
    plan = LayerPlan(kept, (), {}, 0, 0, folder / "members", folder / "records")
    live_bytes, resent, resent_bytes = [0] * kept, 0, 0
    with writing(plan.records) as records, plan.members.open("xb") as listed:
        members = Writer(listed)
        for record, layer in zip(read_records(scanned), found.layers, strict=True):
            path = record.path
            if layer != _CHANGED and path in found.folders:
                found.gone.append((layer, member_name(path)))
            if layer == _CHANGED or path in found.folders:
                resent += 1
                resent_bytes += record.weight
                members.append_line(member_name(path) + b"\0")
                records.append(record._replace(layer=kept))
            else:
                live_bytes[layer] += record.weight
                records.append(record._replace(layer=layer))
        members.flush()
    now_dead: list[set[bytes]] = [set(dead.get(layer, ())) for layer in range(kept)]
    for layer, member in found.gone:
        if layer < kept:
            now_dead[layer].add(member)
    return LayerPlan(
        kept,
        tuple(live_bytes),
        {layer: frozenset(members) for layer, members in enumerate(now_dead)},
        resent,
        resent_bytes,
        plan.members,
        plan.records,
    )
