"""The command that keeps a pod running."""

import re
from typing import Annotated

import typer

from api.podctl import show
from api.podctl.client import connect
from api.podctl.failing import told
from api.podctl.operators import Json
from api.podctl.pods import find_pod

_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def span_s(words: str) -> int:
    """Seconds of 90s, 30min, 2h or 1d. Raises a usage error."""
    match = re.fullmatch(r"([0-9]{1,8}) ?(s|m|min|h|d)", words)
    if match is None:
        raise typer.BadParameter(
            f"{words!r} is no span of time: write 90s, 30min, 2h or 1d", param_hint="--for"
        )
    return int(match[1]) * _UNITS_S[match[2]]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def extend(
        pod: Annotated[str, typer.Argument(metavar="POD", help="Id (p-…) or USER/NAME.")],
        span: Annotated[str, typer.Option("--for", help="How long from now: 30min, 2h, 1d.")] = "1h",
        json: Json = False,
    ) -> None:
        """Keep a pod from being stopped for want of use."""
        seconds = span_s(span)
        with told(as_json=json):
            client = connect()
            kept = client.extend(find_pod(client, pod), seconds)
            show.as_json(kept) if json else show.line(f"{kept.user}/{kept.name}: kept for {span}.")
