"""The highest epoch seen per workspace: what containers and the store cannot always say (LAW 5).

A small JSON file, replaced in one step. If it is lost, damaged or another node's, it is set aside and epochs
are learnt again from the labels of containers and volumes and from actions; no other check rests on it.
"""

import json
import threading
from pathlib import Path
from typing import Any

import structlog

from node_agent.host import write_atomically

VERSION = 1
FILE_BYTES_MAX = 64_000_000

log = structlog.get_logger(__name__)


class Journal:
    """Safe to use from several threads. `see` is durable when it returns, or raises OSError."""

    def __init__(self, path: Path, node_id: str) -> None:
        self._path = path
        self._node_id = node_id
        self._lock = threading.Lock()
        self._epochs = self._read()

    def highest(self, workspace_id: str) -> int:
        """The highest epoch ever seen for a workspace; 0 for an unknown one."""
        with self._lock:
            return self._epochs.get(workspace_id, 0)

    def see(self, workspace_id: str, epoch: int) -> None:
        """Remember an epoch; a lower one than seen before changes nothing."""
        self.see_all({workspace_id: epoch})

    def see_all(self, epochs: dict[str, int]) -> None:
        """Remember several at once: one write."""
        with self._lock:
            higher = {key: epoch for key, epoch in epochs.items() if epoch > self._epochs.get(key, 0)}
            if higher:
                after = self._epochs | higher
                self._write(after)
                self._epochs = after

    def _write(self, epochs: dict[str, int]) -> None:
        content = {"version": VERSION, "node": self._node_id, "epochs": epochs}
        write_atomically(self._path, json.dumps(content, separators=(",", ":")).encode())

    def _read(self) -> dict[str, int]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._path.open("rb") as file:
                return _epochs_of(json.loads(file.read(FILE_BYTES_MAX)), self._node_id)
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError, IsADirectoryError) as error:
            aside = self._path.with_name(f"{self._path.name}.unreadable")
            self._path.rename(aside)
            log.warning(
                "journal.unreadable",
                why=str(error)[:200],
                set_aside=str(aside),
                consequence="epochs are learnt again from containers, volumes and actions",
            )
            return {}


def _epochs_of(content: Any, node_id: str) -> dict[str, int]:
    """Raises ValueError for whatever this node has not written."""
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise ValueError("not a journal of this version")
    if content.get("node") != node_id:
        raise ValueError(f"the journal of node {content.get('node')!r}, not of {node_id!r}")
    epochs = content.get("epochs")
    if not isinstance(epochs, dict) or not all(
        type(epoch) is int and epoch >= 0 for epoch in epochs.values()
    ):
        raise ValueError("its epochs are not numbers")
    return epochs
