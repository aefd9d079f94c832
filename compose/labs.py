"""Sample labs from the checkout into the object store, as tars that are the same for the same files."""

import io
import tarfile
from pathlib import Path

from compose.layout import SAMPLE_LABS
from compose.problems import ProblemError
from node_agent.labs import lab_key
from node_agent.open_store import open_store
from node_agent.store import Store, StoreError, StoreNotFound, StoreTooLarge

# `coder` in every pod image.
POD_UID = 1000
LAB_BYTES_MAX = 64 << 20


def pack_lab(source: Path) -> bytes:
    """The files of a lab as a tar, paths relative to it, owned by the pod's user."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(source.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(source)), recursive=False, filter=_as_the_pod_sees_it)
    assert buffer.tell() <= LAB_BYTES_MAX, f"{source} is too large for a sample lab"
    return buffer.getvalue()


def _as_the_pod_sees_it(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = POD_UID
    member.uname = member.gname = ""
    return member


def publish_labs(store_url: str, source: Path = SAMPLE_LABS) -> tuple[str, ...]:
    """Put each lab that the store has not, or has otherwise; the names of all. Raises `ProblemError`."""
    try:
        store = open_store(store_url)
        store.probe()
        labs = sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
        for lab in labs:
            _put(store, lab_key(lab.name), pack_lab(lab))
    except (StoreError, ValueError) as error:
        raise ProblemError(f"The object store cannot be used: {error} (CODEPODS_STORE_URL)") from error
    return tuple(lab.name for lab in labs)


def _put(store: Store, key: str, content: bytes) -> None:
    if _is_there(store, key, content):
        return
    with store.open_writer(key) as writer:
        writer.write(content)
        writer.commit()


def _is_there(store: Store, key: str, content: bytes) -> bool:
    try:
        return store.get(key, len(content)) == content
    except (StoreNotFound, StoreTooLarge):
        return False
