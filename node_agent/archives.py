"""The object store as steps see it: save, check, restore, labs. Failures are StepErrors."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from node_agent.archive.commit import (
    TREE,
    ArchiveRequest,
    ArchiveResult,
    NodeMemory,
    check_archive,
    read_manifest,
    unconditionally,
    write_archive,
)
from node_agent.archive.errors import ArchiveError, RestoreDiskFull, SourceChanged
from node_agent.archive.fingerprint import tree_fingerprint
from node_agent.archive.incremental import remember_restored
from node_agent.archive.manifest import Manifest
from node_agent.archive.memory import Memory
from node_agent.archive.restore import Fetching, Origins, fetching, unpack_archive
from node_agent.archive.turns import Turns, at_once
from node_agent.attended_store import AttendedStore
from node_agent.errors import DiskFull, ProofVoid, StepError
from node_agent.labels import IMAGE
from node_agent.labs import place_lab
from node_agent.runtime import Container, Volume
from node_agent.source import Source
from node_agent.store import Store, StoreAccessDenied, StoreError, StoreNotFound, StoreUnavailable
from state.model import TargetKind
from state.wire import Action, ArchiveMade, ArchivePod, ArchiveProof, ArchiveSource, ArchiveWorkspace

Note = Callable[[int, int], None]

_CONTAINER, _STARTED, _FINISHED = "container_id", "started_at", "finished_at"
_ADVICE: dict[type[StoreError], str] = {
    StoreUnavailable: "It is tried again; check CODEPODS_STORE_URL and the network.",
    StoreAccessDenied: (
        "Check CODEPODS_STORE_URL and the agent's credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)."
    ),
    StoreNotFound: "Check that the bucket or directory of CODEPODS_STORE_URL exists.",
}


@dataclass(frozen=True, slots=True)
class Coming:
    """An archive that is being fetched: for one restore."""

    manifest: Manifest
    digest: str
    tree: Fetching


class Archives:
    """Archives and labs in one store. Safe to use from several threads. Raises StepError only."""

    def __init__(
        self,
        store: Store,
        memory: Memory | None = None,
        turns: Turns | None = None,
        check: Callable[[], None] = unconditionally,
    ) -> None:
        """Without `turns`, any number is saved at once."""
        self._store = store
        self._memory = memory
        self._turns = turns
        self._check = check

    @property
    def store(self) -> Store:
        """For chores, which are no steps."""
        return self._store

    def attended(self, check: Callable[[], None]) -> "Archives":
        """The same for one action: `check` raises when it is no longer wanted, and transfers end there."""
        return Archives(AttendedStore(self._store, check), self._memory, self._turns, check)

    def save_pod(
        self,
        action: Action,
        container: Container,
        source: Source,
        number: int,
        still: Callable[[], bool],
        note: Note,
    ) -> ArchiveMade:
        """Save a stopped container's changes; `still` is asked right before the manifest."""
        request = _request(
            action,
            number,
            {_CONTAINER: container.id, _STARTED: container.started_at, _FINISHED: container.finished_at},
        )
        of_pod = replace(
            request,
            method=source.method,
            image_id=container.image_id,
            image_ref=container.labels.get(IMAGE),
            notices=source.notices,
        )
        return self._save(action, of_pod, source.directory, still, note)

    def save_workspace(
        self, action: Action, volume: Volume, number: int, still: Callable[[], bool], note: Note
    ) -> ArchiveMade:
        """Save a volume that no container writes to; `still` is asked right before the manifest."""
        request = _request(action, number, {})
        return self._save(action, request, Path(volume.mountpoint), still, note)

    def _save(
        self, action: Action, request: ArchiveRequest, source: Path, still: Callable[[], bool], note: Note
    ) -> ArchiveMade:
        def confirm() -> None:
            if not still():
                raise SourceChanged(f"{request.target_id} was started while it was saved")

        with _told("save it"):
            node = _node_memory(self._memory, action)
            result = write_archive(
                self._store.of_user(request.user_id),
                request,
                source,
                node=node,
                progress=note,
                before_commit=confirm,
                turn=partial(self._turns.one, self._check) if self._turns else at_once,
            )
            return _made(result)

    def volume_fingerprint(self, volume: Volume) -> str:
        """Of the volume's tree as it is now."""
        with _told("look through the workspace"):
            return tree_fingerprint(Path(volume.mountpoint))

    def check(self, action: Action, proof: ArchiveProof) -> None:
        """The proof's archive is whole in the store, and of this target. Raises ProofVoid, or StepError."""
        with _told("check the archive"):
            manifest = check_archive(self._store, proof.manifest_key, proof.manifest_digest)
        _check_target(action, manifest)
        if _fingerprint(manifest.fingerprint) != proof.fingerprint:
            raise ProofVoid("The copy was kept: the archive that should replace it was made of another one.")

    @contextmanager
    def fetching(self, action: Action, source: ArchiveSource) -> Iterator[Coming]:
        """Begin to fetch an archive, for `restore`: the directory may be made meanwhile."""
        with _told("restore it"):
            manifest = read_manifest(self._store, source.manifest_key, source.manifest_digest)
            _check_target(action, manifest)
        with fetching(self._store, manifest) as tree:
            yield Coming(manifest, source.manifest_digest, tree)

    def restore(self, coming: Coming, target_dir: str, note: Note) -> None:
        """Unpack it into an empty directory. After a StepError the directory must be discarded."""
        target, memory = Path(target_dir), self._memory

        def remember(origins: Origins) -> None:
            if memory:
                remember_restored(memory, coming.manifest, coming.digest, target, origins)

        with _told("restore it"):
            unpack_archive(coming.tree, target, meanwhile=remember, progress=note)

    def same_tree(self, base: ArchiveSource, made: ArchiveMade) -> bool:
        """Whether an archive came out as its base is: nothing had changed."""
        with _told("compare archives"):
            before = read_manifest(self._store, base.manifest_key, base.manifest_digest)
            return before.blobs == read_manifest(self._store, made.manifest_key, made.manifest_digest).blobs

    def image_id_of(self, source: ArchiveSource) -> str | None:
        """The id of the image that an archived pod's changes lie on."""
        with _told("read the archive's manifest"):
            return read_manifest(self._store, source.manifest_key, source.manifest_digest).image_id

    def place_lab(self, volume: Volume, lab: str, pod_id: str) -> None:
        """Unpack a lab into a workspace."""
        with _told(f"fetch the lab {lab!r}"):
            place_lab(self._store, volume, lab, pod_id)


def _request(action: Action, number: int, fingerprint: Mapping[str, str]) -> ArchiveRequest:
    return ArchiveRequest(
        kind=_kind(action),
        target_id=action.target,
        user_id=action.user_id,
        epoch=action.epoch,
        attempt=action.attempt,
        number=number,
        created_at=datetime.now(UTC),
        fingerprint=fingerprint,
        method="volume",
    )


def _node_memory(memory: Memory | None, action: Action) -> NodeMemory | None:
    if memory is None:
        return None
    base = action.step.base if isinstance(action.step, ArchivePod | ArchiveWorkspace) else None
    return NodeMemory(memory, base.manifest_key, base.manifest_digest) if base else NodeMemory(memory)


def _kind(action: Action) -> TargetKind:
    return TargetKind.WORKSPACE if action.pod_id is None else TargetKind.POD


def _made(result: ArchiveResult) -> ArchiveMade:
    return ArchiveMade(
        manifest_key=result.manifest_key,
        manifest_digest=result.manifest_digest,
        fingerprint=_fingerprint(result.manifest.fingerprint),
        size_bytes=result.manifest.size_bytes,
        image_id=result.manifest.image_id,
        notices=result.manifest.notices,
    )


def _fingerprint(kept: Mapping[str, str]) -> str:
    """A manifest's fingerprint as it is on the wire."""
    if TREE in kept:
        return kept[TREE]
    return "|".join(kept.get(part, "") for part in (_CONTAINER, _STARTED, _FINISHED))


def _check_target(action: Action, manifest: Manifest) -> None:
    if (manifest.kind, manifest.target_id) != (_kind(action), action.target):
        raise StepError(
            f"The archive is of {manifest.kind} {manifest.target_id}, not of {action.target}: not used.",
            code="archive_of_another",
            permanent=True,
        )


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Store and archive errors as StepErrors."""
    try:
        yield
    except StoreError as error:
        advice = _ADVICE.get(type(error), "")
        raise StepError(f"Could not {doing}: {_sentence(error)} {advice}".strip(), code=error.code) from error
    except RestoreDiskFull as error:
        raise DiskFull(f"Could not {doing}: {_sentence(error)}") from error
    except ArchiveError as error:
        raise StepError(f"Could not {doing}: {_sentence(error)}", code=error.code) from error


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith((".", "!")) else f"{text}."
