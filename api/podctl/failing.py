"""How a command ends badly: exit code 1, the reason on standard error, as JSON on standard output too."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer


class Failed(Exception):
    """The command was refused or failed. `code` is stable; `reason` and `hint` are for people."""

    def __init__(self, code: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.hint = hint


@contextmanager
def told(*, as_json: bool) -> Iterator[None]:
    """Turn `Failed` into the reason on standard error and exit code 1."""
    try:
        yield
    except Failed as failed:
        lines = (failed.reason, failed.hint)
        print(*(plain(line) for line in lines if line), sep="\n", file=sys.stderr)
        if as_json:
            print(json.dumps({"code": failed.code, "reason": failed.reason, "hint": failed.hint}))
        raise typer.Exit(1) from failed


def plain(text: str) -> str:
    """The text without control characters: reasons quote containers, and terminals obey escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
