"""Clearing away what no archive needs any more, of one pod or workspace (rule 22 of garbage collection).

Alive is what a kept manifest names, and the manifest itself. Something else goes only if it is older than any
upload may take, was seen unreferenced by an earlier sweep as well (`doomed`), and is still the same object.
Whatever casts doubt on what is alive (another installation's store, a manifest that cannot be read, a live
object that the list does not show, a request that is old) ends the sweep before anything is deleted (LAW 9).
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from node_agent.archive import manifest as manifests
from node_agent.archive.commit import read_manifest
from node_agent.archive.errors import ArchiveError, ManifestInvalid
from node_agent.archive.manifest import MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest
from node_agent.chores import ChoreContext, ChoreError
from node_agent.store import Store, StoredEntry, StoreNotFound
from state.chore_wire import Payload
from state.copy_wire import IMPORT_ATTEMPTS_FROM
from state.model import TargetKind

# Which installation's database this store goes with.
INSTALLATION_KEY = "installation/id"
INSTALLATION_BYTES_MAX = 200
# What a request says of the archives is believed for so long: no new archive is made of one that was not kept
# then.
REQUEST_AGE_S_MAX = 3600.0
KEYS_MAX = 200_000
CANDIDATES_TOLD_MAX = 2_000
PAGE_KEYS = 1_000


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class KeptManifest(_Told):
    """An archive that is kept."""

    key: str
    digest: str


class SweepRequest(_Told):
    """What the control plane knows of a target's archives. `gone`: it was deleted, and long ago.

    `known` are the manifests of all archives that there ever were; `newest` is the highest number of them.
    """

    store_id: Annotated[str, Field(min_length=8)]
    kind: TargetKind
    target_id: str
    kept: tuple[KeptManifest, ...]
    known: frozenset[str]
    newest: int
    gone: bool = False
    doomed: frozenset[str] = frozenset()
    min_age_s: Annotated[float, Field(ge=0)]
    share_max: Annotated[float, Field(gt=0, le=1)]


@dataclass(slots=True)
class _Seen:
    """One look at the target's objects."""

    entries: dict[str, StoredEntry] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    candidates: list[StoredEntry] = field(default_factory=list)
    young: int = 0


def sweep(context: ChoreContext) -> Payload:
    """The handler of the kind `sweep`. Raises ChoreError, and then has deleted nothing."""
    began_s = time.monotonic()
    request = _request(context)
    check_installation(context.store, request.store_id)
    check_age(context, began_s)
    seen = _look(context, request)
    doomed = [entry for entry in seen.candidates if entry.key in request.doomed]
    doomed = _without_named(context.store, seen, doomed)
    _check_share(request, seen, doomed)
    deleted = list(_delete(context, doomed, began_s))
    left = [entry for entry in seen.candidates if entry.key not in set(deleted)]
    return {
        "candidates": [
            {"key": entry.key, "size_bytes": entry.size_bytes} for entry in left[:CANDIDATES_TOLD_MAX]
        ],
        "deleted": deleted,
        "freed_bytes": sum(entry.size_bytes for entry in doomed if entry.key in set(deleted)),
        "listed": len(seen.entries),
        "unknown": seen.unknown,
        "young": seen.young,
    }


def tidy(context: ChoreContext) -> Payload:
    """The handler of the kind `tidy`: uploads that nobody will finish any more. Also claims a new store."""
    request = _TidyRequest.model_validate(context.chore.request)
    check_installation(context.store, request.store_id)
    return {"dropped": context.store.drop_unfinished(timedelta(seconds=request.min_age_s))}


class _TidyRequest(_Told):
    store_id: Annotated[str, Field(min_length=8)]
    min_age_s: Annotated[float, Field(gt=0)]


def check_installation(store: Store, store_id: str) -> None:
    """The store goes with this database; an unclaimed one does from now on. Raises ChoreError."""
    there = _installation(store)
    if there is None:
        store.put_manifest(INSTALLATION_KEY, store_id.encode())
        there = _installation(store)
    if there != store_id.encode():
        raise ChoreError(
            "The store belongs to another installation, so nothing is cleared away in it. Check "
            "CODEPODS_STORE_URL and CODEPODS_DATABASE_URL. If the database was made anew for this store on "
            f"purpose, put its id into the object {INSTALLATION_KEY}.",
            code="store_of_another",
            permanent=True,
        )


def _installation(store: Store) -> bytes | None:
    with suppress(StoreNotFound):
        return store.get(INSTALLATION_KEY, INSTALLATION_BYTES_MAX)
    return None


def _request(context: ChoreContext) -> SweepRequest:
    try:
        return SweepRequest.model_validate(context.chore.request)
    except ValidationError as error:
        message = f"The sweep's request cannot be read ({error.error_count()} fields)."
        raise ChoreError(message, code="unreadable", permanent=True) from error


def check_age(context: ChoreContext, began_s: float) -> None:
    """Raises ChoreError when the request is too old to be believed."""
    if context.chore.age_s + time.monotonic() - began_s > REQUEST_AGE_S_MAX:
        raise ChoreError("What the request says is too old to be acted upon.", code="stale", permanent=True)


# ---- what is alive -------------------------------------------------------------------------------------


def _look(context: ChoreContext, request: SweepRequest) -> _Seen:
    store, seen = context.store, _Seen()
    # The list first: what is written later is not in it, and what a manifest names was written before it.
    for entry in listed(context, f"archives/{request.kind}/{request.target_id}/"):
        seen.entries[entry.key] = entry
    for kept in request.kept:
        seen.alive |= _named(store, kept)
    missing = sorted(seen.alive - seen.entries.keys())
    if missing:
        _refuse_missing(request, missing)
    if not request.gone:
        _protect_unknown(store, request, seen)
    oldest = store.clock() - timedelta(seconds=request.min_age_s)
    for entry in seen.entries.values():
        _judge(seen, entry, oldest)
    return seen


def listed(context: ChoreContext, prefix: str) -> Iterator[StoredEntry]:
    """All objects under a prefix, page by page. Raises ChoreError for more than KEYS_MAX."""
    after, count = "", 0
    while True:
        context.check()
        page = context.store.entries(prefix, after=after, limit=PAGE_KEYS)
        yield from page
        count += len(page)
        if len(page) < PAGE_KEYS:
            return
        after = page[-1].key
        if count >= KEYS_MAX:
            message = f"There are more than {KEYS_MAX} objects under {prefix}: look at them."
            raise ChoreError(message, code="too_many_objects", permanent=True)


def _named(store: Store, kept: KeptManifest) -> set[str]:
    """The objects of a kept archive. A manifest that cannot be read leaves open what is alive."""
    try:
        manifest = read_manifest(store, kept.key, kept.digest)
    except ArchiveError as error:
        raise ChoreError(
            f"{error}. So nothing is cleared away.",
            code="archive_corrupt",
            permanent=True,
            detail={"manifest_key": kept.key},
        ) from error
    return {kept.key, *(blob.key for blob in manifest.blobs)}


def _refuse_missing(request: SweepRequest, missing: list[str]) -> None:
    """Blobs may lie elsewhere only within the same target."""
    raise ChoreError(
        f"{missing[0]} is needed and not in the store's list ({len(missing)} in all). "
        "So nothing is cleared away.",
        code="object_missing",
        permanent=True,
        detail={"missing": missing[:20], "kept": [kept.key for kept in request.kept]},
    )


def _protect_unknown(store: Store, request: SweepRequest, seen: _Seen) -> None:
    """A whole archive that the database does not know, and that is newer than all it knows, is kept.

    It may be the only copy: its commit was lost, or is still to come.
    """
    for key in sorted(seen.entries.keys() - request.known - seen.alive):
        if not key.endswith(f"/{MANIFEST_NAME}"):
            continue
        manifest = _readable(store, key)
        if manifest is None or manifest.number > request.newest:
            seen.alive |= {key, *_names(seen, key, manifest)}
            seen.unknown.append(key)


def _readable(store: Store, key: str) -> Manifest | None:
    try:
        return manifests.parse(store.get(key, MANIFEST_BYTES_MAX))
    except (ManifestInvalid, StoreNotFound):
        return None


def _names(seen: _Seen, key: str, manifest: Manifest | None) -> set[str]:
    """What a manifest names; of one that cannot be read, all that lies beside it."""
    if manifest is not None:
        return {blob.key for blob in manifest.blobs}
    return {other for other in seen.entries if other.startswith(key.removesuffix(MANIFEST_NAME))}


def _without_named(store: Store, seen: _Seen, doomed: list[StoredEntry]) -> list[StoredEntry]:
    """Not yet what is named by a manifest that nobody needs either, and that stays for now: it is younger.

    An archive that is half gone must not look whole.
    """
    going, named = {entry.key for entry in doomed}, set[str]()
    for key in sorted(seen.entries.keys() - seen.alive - going) if doomed else ():
        if key.endswith(f"/{MANIFEST_NAME}"):
            named |= _names(seen, key, _readable(store, key))
    return [entry for entry in doomed if entry.key not in named]


def _judge(seen: _Seen, entry: StoredEntry, oldest: datetime) -> None:
    if entry.key in seen.alive:
        return
    if entry.modified_at > oldest:
        seen.young += 1
    else:
        seen.candidates.append(entry)


# ---- deleting ------------------------------------------------------------------------------------------


def _check_share(request: SweepRequest, seen: _Seen, doomed: Iterable[StoredEntry]) -> None:
    """That nearly everything of a live target should go is rather a mistake of ours."""
    if request.gone:
        return
    going = sum(entry.size_bytes for entry in doomed)
    everything = sum(entry.size_bytes for entry in seen.entries.values())
    if going and request.kept and going > request.share_max * everything:
        raise ChoreError(
            f"{going} of {everything} bytes of {request.kind} {request.target_id} would go: more than a "
            f"share of {request.share_max:g}, so nothing is cleared away. Look at it, or raise the share.",
            code="too_much",
            permanent=True,
        )
    whole = any(key.endswith(f"/{MANIFEST_NAME}") and not _is_imported(key) for key in seen.entries)
    if going and not request.kept and whole:
        raise ChoreError(
            f"The store has whole archives of {request.kind} {request.target_id}, and the database says that "
            "none is kept, and not that it was deleted. So nothing is cleared away.",
            code="none_kept",
            permanent=True,
        )


def _is_imported(key: str) -> bool:
    """Of an import whose sender was never told that it was done: nobody counts on it."""
    _, _, attempt = key.split("/")[-2].partition("-")
    return attempt.isdigit() and int(attempt) >= IMPORT_ATTEMPTS_FROM


def _delete(context: ChoreContext, doomed: list[StoredEntry], began_s: float) -> Iterator[str]:
    """Manifests first: an archive that is half gone must not look whole."""
    for entry in sorted(doomed, key=lambda entry: (not entry.key.endswith(MANIFEST_NAME), entry.key)):
        context.check()
        check_age(context, began_s)
        if context.store.delete_if_same(entry):
            yield entry.key
