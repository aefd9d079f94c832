"""The commands about the installation on this machine, which `compose.local` carries out."""

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
        typer.Option(min=1, max=16, help="How many node agents; as many as the last time by default."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the system answers.")] = False,
) -> None:
    """Start codepods on this machine."""
    with told(as_json=False):
        raise typer.Exit(_installation().up(nodes=nodes, detach=detach))


def down() -> None:
    """Stop codepods on this machine; keep the data."""
    with told(as_json=False):
        raise typer.Exit(_installation().down())


def clean(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Stop codepods on this machine and remove its data, after asking."""
    with told(as_json=False):
        raise typer.Exit(_installation().clean(yes=yes))


def psql(ctx: typer.Context) -> None:
    """Open psql on the local database; arguments are passed on."""
    with told(as_json=False):
        raise typer.Exit(_installation().psql(ctx.args))


def status() -> None:
    """Say which parts of the local installation are up."""
    with told(as_json=False):
        raise typer.Exit(_installation().status())


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, clean, status):
        app.command(rich_help_panel=_PANEL)(command)
    pass_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(rich_help_panel=_PANEL, context_settings=pass_on)(psql)
