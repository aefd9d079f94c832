"""`podctl`: the commands. Exit codes: 0 done, 1 refused or failed, reason on standard error, 2 usage."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console

from api import wire
from api.podctl import archives, keeping, local, operators, ports, revoking, show, waiting
from api.podctl.client import connect
from api.podctl.failing import told
from api.podctl.operators import Json
from api.podctl.pods import find_pod
from api.values import PAGE_SIZE_MAX
from state.model import Desired

app = typer.Typer(
    name="podctl",
    help="Open, put away and bring back browser IDEs. A POD is an id (p-…) or USER/NAME.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Pod = Annotated[str, typer.Argument(metavar="POD", help="Id (p-…) or USER/NAME.")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until it is so, showing progress on standard error.")
]
Timeout = Annotated[float, typer.Option(min=0, max=86_400, help="How long --wait waits at most, seconds.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the event history.")]
User = Annotated[str | None, typer.Option(help="Whose.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]

TIMEOUT_S = 120.0


def _version(wanted: bool) -> None:
    if wanted:
        print(version("codepods"))
        raise typer.Exit


@app.callback()
def _root(
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command("open")
def open_(
    pod: Annotated[
        str | None, typer.Argument(metavar="[POD]", help="An existing pod; or give --user.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Whose pod; created when there is none yet.")] = None,
    name: Annotated[
        str | None, typer.Option(help="The pod's name; default: the lab's, or `default`.")
    ] = None,
    lab: Annotated[str | None, typer.Option(help="Lab to load and open.")] = None,
    image: Annotated[str | None, typer.Option(help="Image, when it is created.")] = None,
    cpu_millis: Annotated[int | None, typer.Option(help="CPU limit, thousandths of a core.")] = None,
    memory_mib: Annotated[int | None, typer.Option(help="Memory limit, MiB.")] = None,
    pids: Annotated[int | None, typer.Option(help="Limit of processes.")] = None,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT_S,
    json: Json = False,
) -> None:
    """Create a pod or bring it back, and print its link."""
    if (pod is None) == (user is None):
        raise typer.BadParameter("give either POD or --user")
    made = {"name": name, "lab": lab, "image": image, "cpu_millis": cpu_millis}
    made |= {"memory_mib": memory_mib, "pids": pids}
    asked = {field: value for field, value in made.items() if value is not None}
    if pod is not None and asked:
        raise typer.BadParameter("an existing POD is opened as it is; leave out " + ", ".join(asked))
    with told(as_json=json):
        client = connect()
        pod_id = find_pod(client, pod) if pod else client.create({"user": user, **asked}).pod_id
        opened = client.open(pod_id)
        if wait and opened.url is None:
            with waiting.shown(Console(stderr=True)) as progress:
                opened = waiting.wait_for_link(client, pod_id, waiting.Patience(timeout), progress)
        _show_opened(opened, as_json=json)


def _show_opened(opened: wire.OpenedPod, *, as_json: bool) -> None:
    if as_json:
        show.as_json(opened)
    elif opened.url:
        show.line(opened.url)
    else:
        show.state(opened.pod)


@app.command("list")
def list_(user: User = None, limit: Limit = 1000, json: Json = False) -> None:
    """List pods."""
    with told(as_json=json):
        found = connect().pods(user, limit)
        show.as_json(found) if json else show.pods(found)


@app.command()
def get(pod: Pod, json: Json = False) -> None:
    """Show all about a pod."""
    with told(as_json=json):
        client = connect()
        found = client.get(find_pod(client, pod))
        show.as_json(found) if json else show.pod(found)


@app.command()
def start(
    pod: Pod, reason: Reason = None, wait: Wait = False, timeout: Timeout = TIMEOUT_S, json: Json = False
) -> None:
    """Have a pod run."""
    _want(pod, Desired.RUNNING, reason, timeout if wait else None, json)


@app.command()
def stop(
    pod: Pod, reason: Reason = None, wait: Wait = False, timeout: Timeout = TIMEOUT_S, json: Json = False
) -> None:
    """Stop a pod; its container stays on its node."""
    _want(pod, Desired.STOPPED, reason, timeout if wait else None, json)


@app.command()
def archive(
    pod: Pod, reason: Reason = None, wait: Wait = False, timeout: Timeout = TIMEOUT_S, json: Json = False
) -> None:
    """Save a pod to the object store and free its node of it."""
    _want(pod, Desired.ARCHIVED, reason, timeout if wait else None, json)


@app.command()
def delete(
    pod: Pod,
    reason: Reason = None,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT_S,
    json: Json = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a pod for good. The user's files under /workspaces stay. Asks first, on a terminal."""
    if sys.stdin.isatty() and not (yes or json):
        typer.confirm(f"Delete {pod}? It does not come back.", abort=True, err=True)
    _want(pod, Desired.DELETED, reason, timeout if wait else None, json)


def _want(ref: str, wanted: Desired, reason: str | None, timeout_s: float | None, json: bool) -> None:
    with told(as_json=json):
        client = connect()
        pod = client.set_desired(find_pod(client, ref), wanted, reason)
        if timeout_s is not None:
            with waiting.shown(Console(stderr=True)) as progress:
                pod = waiting.wait_for(client, pod.pod_id, wanted, waiting.Patience(timeout_s), progress)
        show.as_json(pod) if json else show.state(pod)


@app.command()
def explain(pod: Pod, json: Json = False) -> None:
    """Say why a pod is as it is, and what it waits for."""
    with told(as_json=json):
        client = connect()
        found = client.explain(find_pod(client, pod))
        show.as_json(found) if json else show.explanation(found)


@app.command()
def events(
    pod: Annotated[str | None, typer.Argument(metavar="[POD]", help="Of this pod only.")] = None,
    user: User = None,
    node: Annotated[str | None, typer.Option(help="Of this node only.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only events after this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_SIZE_MAX, help="How many at most.")] = wire.PAGE_SIZE,
    json: Json = False,
) -> None:
    """Show the history, oldest first."""
    if pod and (user or node):
        raise typer.BadParameter("give POD, or --user and --node")
    with told(as_json=json):
        client = connect()
        params = {"user": user, "node": node, "after": after, "limit": limit}
        found = client.events(find_pod(client, pod) if pod else None, params)
        show.as_json(found) if json else show.events(found)


archives.register(app)
ports.register(app)
keeping.register(app)
operators.register(app)
revoking.register(app)
local.register(app)


def main() -> None:
    """Entry point of `podctl`."""
    app()


if __name__ == "__main__":
    main()
