"""What people and scripts read: tables and sentences on standard output, or one JSON value."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from api import wire, wire_tokens
from api.podctl.failing import plain
from api.podctl.waiting import called, how_far

# Where lines go to a file or a pipe there is no width to fit into.
PIPE_WIDTH = 400


def as_json(value: wire.Reply | Sequence[wire.Reply]) -> None:
    """Print one JSON value."""
    if isinstance(value, wire.Reply):
        print(value.model_dump_json(indent=2))
    else:
        print(json.dumps([item.model_dump(mode="json") for item in value], indent=2))


def pods(found: Iterable[wire.Pod]) -> None:
    """Print pods as a table."""
    rows = (
        (pod.pod_id, pod.user, pod.name, pod.desired, pod.state, pod.node, ago(pod.since), pod.reason)
        for pod in found
    )
    table(("POD", "USER", "NAME", "WANTED", "IS", "NODE", "SINCE", "REASON"), rows)


def pod(one: wire.Pod) -> None:
    """Print all about one pod, a line each."""
    for name, value in one.model_dump(
        mode="json", exclude={"failure", "archive", "progress", "stops"}
    ).items():
        if value is not None:
            line(f"{name:<12} {value}")
    if one.archive:
        line(f"{'archive':<12} number {one.archive.number}, {one.archive.committed_at:%Y-%m-%d %H:%M:%S %Z}")
    if one.failure:
        line(f"{'failure':<12} {failed(one.failure)}")
    if one.stops:
        line(f"{'stops':<12} {stops(one.stops)}")


def stops(coming: wire.Stops) -> str:
    """When a pod will be stopped, in a sentence."""
    warned = "; whoever is in it has been told" if coming.warned else ""
    return f"{coming.at:%Y-%m-%d %H:%M:%S %Z}, if nothing changes: {coming.reason}{warned}"


def state(one: wire.Pod) -> None:
    """Print what is wanted and what is, in a line."""
    settled = one.state == one.desired
    line(f"{called(one)}: {one.state}" + ("" if settled else f", wanted {one.desired}"))


def explanation(told: wire.Explanation) -> None:
    """Print why a pod is as it is."""
    one = told.pod
    where = f" on {one.node}" if one.node else ""
    line(f"{called(one)}: wanted {one.desired}, is {one.state}{where} ({ago(one.since) or 'just now'}).")
    line(f"Waits for: {told.waiting_for}")
    if told.step:
        line(f"Under way: {told.step.verb} on {told.step.node}, since {ago(told.step.since)}")
    if one.progress:
        line(f"Progress:  {how_far(one.progress)}")
    if one.failure:
        line(f"Failure:   {failed(one.failure)}")
    if one.archive:
        line(f"Archive:   number {one.archive.number} of {one.archive.committed_at:%Y-%m-%d %H:%M:%S %Z}")
    for alarm in told.alarms:
        line(f"Alarm:     {alarm.message}")
    if one.stops:
        line(f"Stops:     {stops(one.stops)}")
    line("History:")
    events(told.events)


def failed(failure: wire.Failure) -> str:
    """A failure in a sentence."""
    again = "trying again does not help" if failure.permanent else f"next try {failure.retry_at:%H:%M:%S %Z}"
    return f"{failure.verb} failed ({failure.code}, {failure.count}×): {failure.message} ({again})"


def events(found: Iterable[wire.Event]) -> None:
    """Print events as a table."""
    rows = (
        (
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            event.pod_id or event.workspace_id or event.node_id,
            _what(event),
            f"{event.from_value or '-'} → {event.to_value or '-'}",
            event.actor,
            event.reason,
        )
        for event in found
    )
    table(("AT (UTC)", "OF", "WHAT", "CHANGE", "BY", "WHY"), rows)


def _what(event: wire.Event) -> str:
    """An action by its verb, which says more than that it was one."""
    verb = (event.detail or {}).get("verb")
    return verb if isinstance(verb, str) else event.kind


def nodes(found: Iterable[wire.Node]) -> None:
    """Print nodes as a table."""
    rows = (
        (
            node.node_id,
            "alive" if node.alive else "lost" if node.lost else "silent",
            ago(node.last_seen_at),
            "yes" if node.cordoned else "no",
            f"{node.cpu_millis / 1000:g}",
            str(node.memory_mib),
            str(node.pods),
            node.engine_error,
        )
        for node in found
    )
    table(("NODE", "IS", "HEARD", "CORDONED", "CPUS", "MEMORY MIB", "PODS", "ENGINE"), rows)


def tokens(found: Iterable[wire_tokens.Token]) -> None:
    """Print tokens as a table."""
    rows = (
        (token.token_id, token.name, token.scope, ago(token.created_at), ago(token.revoked_at))
        for token in found
    )
    table(("ID", "NAME", "SCOPE", "MADE", "REVOKED"), rows)


def ago(moment: datetime | None) -> str:
    """How long since, in the largest unit that fits."""
    if moment is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def line(text: str) -> None:
    """Print a line as it is, but for control characters."""
    print(plain(text))


def table(heads: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold", no_wrap=head in ("POD", "NODE", "AT (UTC)"))
    for row in rows:
        table.add_row(*(Text(plain(cell or "")) for cell in row))
    console = Console()
    console.print(table) if console.is_terminal else Console(width=PIPE_WIDTH).print(table)
