"""What people see: the first pod's link, hints, one line for each event, the table of `status`."""

import time
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from compose.environment import Environment
from compose.journal import Entry, Kind
from compose.layout import SAMPLE_LABS
from compose.local_api import Client, create_or_find_pod, opening
from compose.ports import holder_of, setting_of
from compose.problems import ProblemError
from compose.processes import ProcessId
from compose.progress import Progress

FIRST_USER = "demo"
FIRST_LAB = "hello"
FIRST_POD_TIMEOUT_S = 120.0


def show_first_pod(console: Console, progress: Progress, environment: Environment) -> None:
    """Open the sample pod as `podctl open` would, and print its link. Raises `ProblemError`."""
    client = Client.load(environment.layout)
    if client is None:
        raise ProblemError(f"{environment.layout.client} cannot be read: make down && make up")
    lab = FIRST_LAB if (SAMPLE_LABS / FIRST_LAB).is_dir() else None
    with progress.step("A first pod") as detail:
        url, expires_at = "", ""
        deadline = time.monotonic() + FIRST_POD_TIMEOUT_S
        for opened in opening(client, create_or_find_pod(client, FIRST_USER, lab)):
            url, expires_at = opened["url"] or "", opened["expires_at"] or ""
            detail(_how_far(opened))
            progress.tick()
            if not url and time.monotonic() > deadline:
                raise ProblemError(
                    f"The first pod is not there after {FIRST_POD_TIMEOUT_S:.0f} s: {_how_far(opened)}"
                )
    # The link alone on its line: it is there to be copied.
    console.print(f"\n  {escape(url)}\n")
    left = datetime.fromisoformat(expires_at) - datetime.now(UTC)
    console.print(f"  The link opens for {minutes(left)}; whoever has it is in, so keep it to yourself.\n")


def minutes(left: timedelta) -> str:
    """How long in words: the nearest minute, and at least one."""
    count = max(1, round(left / timedelta(minutes=1)))
    return "1 minute" if count == 1 else f"{count} minutes"


def _how_far(opened: Entry) -> str:
    pod = opened["pod"]
    failure = pod["failure"] if opened["state"] != "running" else None
    return f"{opened['state']}, {failure['message'] if failure else pod['reason'] or ''}".rstrip(", ")


def show_hints(console: Console, environment: Environment, took_s: float, *, detached: bool) -> None:
    """How to go on from here."""
    layout = environment.layout
    podctl = ".venv/bin/podctl"
    rows = (
        ("a fresh link", f"{podctl} open --user {FIRST_USER} --lab {FIRST_LAB} --wait"),
        ("all pods", f"{podctl} list"),
        ("why a pod is as it is", f"{podctl} explain {FIRST_USER}/{FIRST_LAB}"),
        ("put away, bring back", f"{podctl} archive {FIRST_USER}/{FIRST_LAB} --wait; then open it again"),
        ("SQL", "make psql"),
        *_about_the_certificate(environment),
        ("logs", str(layout.log)),
        ("stop, keep the data", "make down" if detached else "Ctrl-C"),
    )
    console.print(f"  Up in {took_s:.1f} s.\n")
    for what, how in rows:
        console.print(f"  [dim]{what:<24}[/]{escape(how)}")


def _about_the_certificate(environment: Environment) -> list[tuple[str, str]]:
    """Nothing to do where the operator's own is used, or a balancer's."""
    if environment.front.certificate or not environment.front.tls:
        return []
    return [("no browser warning", f"import {environment.layout.tls / 'ca.crt'} into the browser")]


def show_event(console: Console, entry: Entry) -> None:
    """One line for what the supervisor did."""
    clock = str(entry["at"])[11:19]
    match entry["kind"]:
        case Kind.STARTED:
            line = f"{entry['program']} started (pid {entry['pid']})"
        case Kind.ENDED:
            line = f"{entry['program']} {entry['how']}; again in {entry['again_in_s']:.1f} s"
        case Kind.STOPPING:
            line = "stopping"
        case Kind.STOPPED:
            line = "stopped"
        case _:
            return
    console.print(f"  [dim]{clock}[/] {escape(line)}")


def show_status(console: Console, environment: Environment, *, running: bool) -> None:
    """Programs, ports, pods and alarms."""
    console.print(
        f"codepods is {'up' if running else 'down'}: {environment.base_url}  ({environment.layout.home})\n"
    )
    console.print(_programs(environment))
    console.print(_ports(environment))
    client = Client.load(environment.layout)
    if running and client is not None:
        console.print(_pods(client))
        _show_alarms(console, client)


def _show_alarms(console: Console, client: Client) -> None:
    alarms = client.call("GET", "alarms")["alarms"]
    for alarm in alarms:
        console.print(f"[red]alarm[/] {escape(alarm['kind'])}: {escape(alarm['message'])}")
    if not alarms:
        console.print("No alarms.")


def _programs(environment: Environment) -> Table:
    table = Table("program", "pid", "state", "log")
    for pid_file in sorted(environment.layout.run.glob("*.pid")):
        known = ProcessId.read(pid_file)
        alive = known is not None and known.is_alive()
        log = environment.layout.log_of(pid_file.stem)
        table.add_row(pid_file.stem, str(known.pid) if known else "?", "runs" if alive else "ended", str(log))
    return table


def _ports(environment: Environment) -> Table:
    table = Table("port", "for", "held by", "moved by")
    for name, port in environment.ports.items():
        holder = holder_of(port)
        table.add_row(str(port), name, f"{holder[1]} ({holder[0]})" if holder else "nobody", setting_of(name))
    return table


def _pods(client: Client) -> Table:
    table = Table("pod", "user", "name", "desired", "state", "node", "why")
    for pod in client.call("GET", "pods")["pods"]:
        words = (pod[key] or "" for key in ("pod_id", "user", "name", "desired", "state", "node", "reason"))
        table.add_row(*(escape(str(word)) for word in words))
    return table
