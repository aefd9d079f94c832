"""The commands of operators: nodes, and the API's tokens."""

from typing import Annotated

import typer

from api import wire
from api.podctl import show
from api.podctl.client import connect
from api.podctl.failing import told

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]
Node = Annotated[str, typer.Argument(metavar="NODE", help="As `podctl nodes` calls it.")]

_nodes = typer.Typer(rich_markup_mode=None)
_tokens = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@_nodes.callback(invoke_without_command=True)
def nodes(context: typer.Context, json: Json = False) -> None:
    """Show the nodes; or keep new placements off one."""
    if context.invoked_subcommand is None:
        with told(as_json=json):
            found = connect().nodes()
            show.as_json(found) if json else show.nodes(found)


@_nodes.command()
def cordon(node: Node, json: Json = False) -> None:
    """Keep new placements off a node; the pods that are there stay."""
    _cordon(node, cordoned=True, json=json)


@_nodes.command()
def uncordon(node: Node, json: Json = False) -> None:
    """Let new placements come to a node again."""
    _cordon(node, cordoned=False, json=json)


def _cordon(node: str, *, cordoned: bool, json: bool) -> None:
    with told(as_json=json):
        found = connect().cordon(node, cordoned)
        show.as_json(found) if json else show.nodes([found])


@_nodes.command()
def lost(
    node: Node,
    reason: Annotated[str, typer.Option(help="Why you are sure; kept in the history.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Sign that a silent node is gone for good: its users go on elsewhere, from their last archives."""
    if not yes:
        typer.confirm(
            f"What {node}'s users have done since their last archives is on its disk alone. Give it up?",
            abort=True,
        )
    with told(as_json=json):
        found = connect().declare_lost(node, reason)
        show.as_json(found) if json else show.nodes([found])


@_tokens.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who uses it, for the event history.")],
    scope: Annotated[wire.Scope, typer.Option(help="What it may do: handle pods, look, or everything.")],
    json: Json = False,
) -> None:
    """Make a token and print it, this once."""
    with told(as_json=json):
        made = connect().create_token(name, scope)
        show.as_json(made) if json else show.line(made.token)


@_tokens.command("list")
def list_(json: Json = False) -> None:
    """List tokens, without the tokens themselves."""
    with told(as_json=json):
        found = connect().tokens()
        show.as_json(found) if json else show.tokens(found)


@_tokens.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `podctl token list` shows it: t-…")],
    json: Json = False,
) -> None:
    """Revoke a token: it opens nothing from the next request on."""
    with told(as_json=json):
        ended = connect().revoke_token(token_id)
        show.as_json(ended) if json else show.tokens([ended])


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_nodes, name="nodes")
    app.add_typer(_nodes, name="node", hidden=True)
    app.add_typer(_tokens, name="token", help="Make, list and revoke tokens of the API.")
