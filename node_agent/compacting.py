"""The chore that rewrites a long chain of layers into one, where restores gain more than it costs."""

from node_agent.archive.commit import read_manifest
from node_agent.archive.compact import compact, is_worth_compacting
from node_agent.archive.errors import ArchiveCorrupt, ArchiveError
from node_agent.archive.progress import Progress
from node_agent.chores import ChoreContext, ChoreError
from node_agent.named_archive import named_archive
from state.chore_wire import Payload

_RUN_CHARACTERS_MAX = 40


def compact_archive(context: ChoreContext) -> Payload:
    """The handler of the kind `compact`. Only adds to the store: it is the database that hands over."""
    request = named_archive(context)
    try:
        manifest = read_manifest(context.store, request.manifest_key, request.manifest_digest)
        if not is_worth_compacting(manifest):
            return {"worth": False, "layers": len(manifest.layers)}
        store = context.store.of_user(manifest.user_id)
        made = compact(store, manifest, _run(context), progress=_paced(context))
    except ArchiveCorrupt as error:
        raise ChoreError(str(error), code=error.code, permanent=True) from error
    except ArchiveError as error:
        raise ChoreError(str(error), code=error.code, permanent=not error.retryable) from error
    context.check()
    return {
        "worth": True,
        "layers": len(manifest.layers),
        "manifest_key": made.manifest_key,
        "manifest_digest": made.manifest_digest,
        "size_bytes": made.manifest.size_bytes,
        "was_bytes": manifest.size_bytes,
    }


def _run(context: ChoreContext) -> str:
    """Of this giving-out alone: two nodes that both think the chore theirs never write one key."""
    name = f"c{context.chore.id.replace('-', '')}{context.chore.attempt}"
    return name.lower()[:_RUN_CHARACTERS_MAX]


def _paced(context: ChoreContext) -> Progress:
    done_before = 0

    def progress(done_bytes: int, total_bytes: int) -> None:
        nonlocal done_before
        context.spend(max(0, done_bytes - done_before))
        done_before = done_bytes
        context.note("compacting", done_bytes, total_bytes)

    return progress
