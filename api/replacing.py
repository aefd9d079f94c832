"""Replacing a small file in one step: whoever reads it sees the old text or the new one, never a part."""

import os
import tempfile
from pathlib import Path


def replace_file(target: Path, text: str, *, mode: int, gid: int = -1, lasting: bool = False) -> None:
    """`gid` -1: the group as it comes. `lasting`: on the disk before it is seen. Raises `OSError`."""
    with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=".new-", delete=False) as temporary:
        try:
            temporary.write(text)
            temporary.flush()
            os.fchmod(temporary.fileno(), mode)
            os.fchown(temporary.fileno(), -1, gid)
            if lasting:
                os.fsync(temporary.fileno())
            Path(temporary.name).replace(target)
        # Whatever stops it, a signal too: what was begun must not stay beside the file.
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise
