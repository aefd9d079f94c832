"""The commands about ports: who may see the applications that run in a pod."""

from typing import Annotated

import typer

from api.podctl import show
from api.podctl.client import connect
from api.podctl.failing import told
from api.podctl.pods import find_pod
from state.model import Visibility

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]
Pod = Annotated[str, typer.Argument(metavar="POD", help="Id (p-…) or USER/NAME.")]


def ports(pod: Pod, json: Json = False) -> None:
    """Show the ports of a pod that are open to others, and their addresses."""
    with told(as_json=json):
        client = connect()
        found = client.ports(find_pod(client, pod))
        if json:
            show.as_json(found)
        else:
            rows = ((str(one.port), one.visibility, one.url) for one in found)
            show.table(("PORT", "OPEN TO", "ADDRESS"), rows)


def port(
    pod: Pod,
    number: Annotated[int, typer.Argument(metavar="PORT", min=1, max=65_535)],
    visibility: Annotated[Visibility, typer.Argument(help="Who may see it: its user, who has a link, all.")],
    json: Json = False,
) -> None:
    """Say who may see the application on a port, and print its address."""
    with told(as_json=json):
        client = connect()
        made = client.set_port(find_pod(client, pod), number, visibility)
        show.as_json(made) if json else show.line(made.url)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (ports, port):
        app.command()(command)
