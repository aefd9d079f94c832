"""`podctl revoke`: throwing out a user, a pod's visitors, a session, or all that a key let in."""

from typing import Annotated

import typer

from api.podctl import show
from api.podctl.client import connect
from api.podctl.failing import told
from api.podctl.operators import Json
from api.podctl.pods import find_pod
from state.revoked import Kind


def revoke(
    user: Annotated[str | None, typer.Option(help="All sessions of this user.")] = None,
    pod: Annotated[str | None, typer.Option(help="All sessions of this pod: p-… or USER/NAME.")] = None,
    session: Annotated[str | None, typer.Option(help="This one, as nginx's access log names it.")] = None,
    key: Annotated[str | None, typer.Option(help="All that this key of the ring sealed.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the event history.")] = None,
    json: Json = False,
) -> None:
    """Throw somebody out within 10 s, open sockets too. Links made later open again."""
    given = {Kind.USER: user, Kind.POD: pod, Kind.SESSION: session, Kind.KEY: key}
    asked = [(kind, subject) for kind, subject in given.items() if subject]
    if len(asked) != 1:
        raise typer.BadParameter("give one of --user, --pod, --session and --key")
    [(kind, subject)] = asked
    with told(as_json=json):
        client = connect()
        if kind is Kind.POD:
            subject = find_pod(client, subject)
        made = client.revoke(kind, subject, reason)
        show.as_json(made) if json else show.line(f"Revoked: {made.kind} {made.subject}.")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(revoke)
