"""An unpacked archive into a fresh container through the engine: the order of it, and the gate."""

from pathlib import Path

from node_agent.archive.errors import ArchiveError
from node_agent.archive.safe_restore import Removals, additions, take_removals, those_inside
from node_agent.errors import EngineRefused, StepError
from node_agent.parts import Fence, Parts
from node_agent.runtime import REMOVALS_FILE, SESSION_DIR, Container, PathType

_REMOVE = ("/bin/sh", "-c", f"xargs -0 rm -rf -- <{SESSION_DIR}/{REMOVALS_FILE}")


class SafeFilling:
    """For one container that is half made, gated, and was never started."""

    def __init__(self, parts: Parts, container: Container, fence: Fence) -> None:
        self._parts = parts
        self._container = container
        self._fence = fence

    def fill(self, tree: Path) -> None:
        """Make the container hold the tree over its image; consumes the tree. Raises StepError, and then the
        container must be discarded."""
        files, container_id = self._parts.runtime.files, self._container.id
        try:
            marked = take_removals(tree, files.mounts_of(container_id))
            removals = those_inside(marked, self._is_folder)
            if removals.paths:
                self._remove(removals)
            self._fence.check()
            files.write_tree(container_id, additions(tree))
        except ArchiveError as error:
            raise StepError(f"Could not restore it: {error}.", code=error.code) from error

    def _is_folder(self, path: str) -> bool:
        return self._parts.runtime.files.type_of(self._container.id, path) is PathType.FOLDER

    def _remove(self, removals: Removals) -> None:
        """Run the container behind its shut gate: nothing of the pod's own command is started."""
        parts, session_dir = self._parts, self._container.session_dir or ""
        parts.firewall.ensure()
        parts.host.shut_gate(session_dir, removals.as_file())
        try:
            self._fence.check()
            self._start()
            code, said = parts.runtime.files.run_as_root(self._container.id, _REMOVE)
        finally:
            parts.runtime.stop(self._container.id, 0)
            parts.host.open_gate(session_dir)
        if code != 0:
            raise StepError(
                f"Could not remove in the restored pod what had been deleted (exit {code}): {said.strip()}.",
                code="restore_failed",
            )

    def _start(self) -> None:
        try:
            self._parts.runtime.start(self._container.id)
        except EngineRefused as error:
            raise StepError(
                "The pod was not restored: files of its image had been deleted, and this node removes them "
                f"with the image's own /bin/sh, xargs and rm. {error.message} Restore it on a node that "
                "archives the fast way.",
                code="archive_unsupported",
                permanent=True,
            ) from error
