"""Clearing away images that nothing is made of any more, and finding targets that nobody knows.

An image's manifest goes first, and only if the request knows the image as dead, an earlier look saw the
same, it is old, and it is still the same object: nodes renew the manifests of the images they have
(`node_agent.images`), so one that is taken into use again is young. A layer goes once no manifest in the
store names it, seen twice too. Any doubt (a manifest that cannot be read, one that came meanwhile) ends it
before anything more is deleted.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from node_agent.archive.errors import ArchiveError
from node_agent.archive.image_store import IMAGES_PREFIX, LAYERS_PREFIX, image_key, read_image
from node_agent.chores import ChoreContext, ChoreError
from node_agent.store import StoredEntry
from node_agent.sweep import CANDIDATES_TOLD_MAX, PAGE_KEYS, check_age, check_installation, listed
from state.chore_wire import Payload
from state.model import TargetKind

ARCHIVES_PREFIX = "archives/"
TARGETS_MAX = 2_000
PAGES_MAX = 100


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    store_id: Annotated[str, Field(min_length=8)]


class ImagesRequest(_Asked):
    """`dead`: ids of images that the database knows and that nothing is made of. `needed`: of archives."""

    dead: frozenset[str]
    needed: tuple[str, ...] = ()
    doomed: frozenset[str] = frozenset()
    min_age_s: Annotated[float, Field(ge=0)]


class SurveyRequest(_Asked):
    """`after`: where the last look ended."""

    after: str = ""


@dataclass(slots=True)
class _Seen:
    manifests: dict[str, StoredEntry] = field(default_factory=dict)
    layers: dict[str, StoredEntry] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)


def sweep_images(context: ChoreContext) -> Payload:
    """The handler of the kind `sweep_images`. Raises ChoreError."""
    began_s = time.monotonic()
    request = ImagesRequest.model_validate(context.chore.request)
    check_installation(context.store, request.store_id)
    check_age(context, began_s)
    seen = _look(context)
    candidates = _candidates(context, request, seen)
    doomed = [entry for entry in candidates if entry.key in request.doomed]
    deleted = list(_delete(context, doomed, seen, began_s))
    gone = set(deleted)
    left = [entry for entry in candidates if entry.key not in gone]
    missing = [image_id for image_id in request.needed if image_key(image_id) not in seen.manifests]
    return {
        "candidates": [{"key": one.key, "size_bytes": one.size_bytes} for one in left[:CANDIDATES_TOLD_MAX]],
        "deleted": deleted,
        "freed_bytes": sum(entry.size_bytes for entry in doomed if entry.key in gone),
        "missing": missing,
    }


def _look(context: ChoreContext) -> _Seen:
    seen = _Seen()
    # The layers first: a manifest that comes after this look names layers that are older than it.
    for entry in listed(context, LAYERS_PREFIX):
        seen.layers[entry.key] = entry
    for entry in listed(context, IMAGES_PREFIX):
        if not entry.key.startswith(LAYERS_PREFIX):
            seen.manifests[entry.key] = entry
    for key in seen.manifests:
        seen.named |= _named(context, key)
    return seen


def _named(context: ChoreContext, key: str) -> set[str]:
    """The layers of an image. What cannot be read leaves open which layers are needed."""
    image_id = f"sha256:{key.removeprefix(IMAGES_PREFIX).partition('/')[0]}"
    try:
        manifest = read_image(context.store, image_id)
    except ArchiveError as error:
        message = f"{error}. So no image is cleared away."
        raise ChoreError(message, code=error.code, permanent=True) from error
    return {layer.key for layer in manifest.layers} if manifest else set()


def _candidates(context: ChoreContext, request: ImagesRequest, seen: _Seen) -> list[StoredEntry]:
    oldest = context.store.clock() - timedelta(seconds=request.min_age_s)
    dead = {image_key(image_id) for image_id in request.dead}
    manifests = (entry for key, entry in seen.manifests.items() if key in dead)
    layers = (entry for key, entry in seen.layers.items() if key not in seen.named)
    return [entry for entry in (*manifests, *layers) if entry.modified_at <= oldest]


def _delete(context: ChoreContext, doomed: list[StoredEntry], seen: _Seen, began_s: float) -> Iterator[str]:
    """Manifests first: an image that is half gone must not look whole."""
    for entry in sorted(doomed, key=lambda entry: (entry.key in seen.layers, entry.key)):
        context.check()
        check_age(context, began_s)
        if entry.key in seen.layers and _came_meanwhile(context, seen):
            return
        if context.store.delete_if_same(entry):
            yield entry.key


def _came_meanwhile(context: ChoreContext, seen: _Seen) -> bool:
    """Whether there is a manifest that was not looked at, which may name any layer."""
    there = {entry.key for entry in listed(context, IMAGES_PREFIX) if not entry.key.startswith(LAYERS_PREFIX)}
    return bool(there - seen.manifests.keys())


# ---- what is in the store at all --------------------------------------------------------------------------


def survey(context: ChoreContext) -> Payload:
    """The handler of the kind `survey`: the pods and workspaces that have archives, a part of them."""
    request = SurveyRequest.model_validate(context.chore.request)
    check_installation(context.store, request.store_id)
    targets: set[tuple[str, str]] = set()
    after = request.after
    for _ in range(PAGES_MAX):
        context.check()
        page = context.store.entries(ARCHIVES_PREFIX, after=after, limit=PAGE_KEYS)
        targets |= {target for entry in page if (target := _target(entry.key)) is not None}
        after = page[-1].key if len(page) == PAGE_KEYS else ""
        if not after or len(targets) >= TARGETS_MAX:
            break
    return {"targets": sorted(targets), "until": after}


def _target(key: str) -> tuple[str, str] | None:
    kind, _, rest = key.removeprefix(ARCHIVES_PREFIX).partition("/")
    target, slash, _ = rest.partition("/")
    with suppress(ValueError):
        return (TargetKind(kind), target) if slash else None
    return None
