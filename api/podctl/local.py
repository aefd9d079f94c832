"""The commands about the installation on this machine, which `compose.local` carries out."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from api.podctl.failing import Failed, told

_PANEL = "This machine"


def _installation() -> Any:
    """`compose.local`, imported when one of its commands is used: podctl alone is only a client."""
    try:
        from compose import local as installation
    except ImportError as error:
        raise Failed(
            "not_a_checkout",
            f"This podctl cannot run an installation: {error}.",
            "Use the one in a checkout: .venv/bin/podctl",
        ) from error
    return installation


def up(
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=8, help="How many node agents; default: as many as the last time."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the system answers.")] = False,
) -> None:
    """Start codepods on this machine."""
    _end(lambda installation: installation.up(nodes, detach=detach))


def down() -> None:
    """Stop codepods on this machine; keep the data."""
    _end(lambda installation: installation.down())


def clean(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Stop codepods on this machine and remove its data, after asking."""
    _end(lambda installation: installation.clean(yes=yes))


def psql(ctx: typer.Context) -> None:
    """Open psql on the local database; arguments are passed on."""
    _end(lambda installation: installation.psql(ctx.args))


def status() -> None:
    """Say which parts of the local installation are up."""
    _end(lambda installation: installation.status())


def _end(command: Callable[[Any], int]) -> None:
    """End as the installation's command does: it has told its reasons itself."""
    with told(as_json=False):
        raise typer.Exit(command(_installation()))


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, clean, status):
        app.command(rich_help_panel=_PANEL)(command)
    pass_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(rich_help_panel=_PANEL, context_settings=pass_on)(psql)
