"""The commands about archives: which there are, going back to one, and alarms."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from api import wire, wire_archives
from api.podctl import show, waiting
from api.podctl.client import Client, connect
from api.podctl.failing import Failed, told
from api.podctl.local_files import tar_of, written
from api.podctl.oci_notes import OciNotes
from api.podctl.pods import PODS_OF_USER_MAX, find_pod
from state.model import ExportForm, ExportWhat, ImportForm, What

_UNTOLD = (
    "its node, of an older version, does not say; docs/archive-format.md lists what an image cannot carry"
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]
Pod = Annotated[str, typer.Argument(metavar="POD", help="Id (p-…) or USER/NAME.")]


def archives(pod: Pod, json: Json = False) -> None:
    """Show the archives of a pod and of its user's files that can be gone back to."""
    with told(as_json=json):
        client = connect()
        found = client.archives(find_pod(client, pod))
        show.as_json(found) if json else _table(found)


def restore(
    pod: Pod,
    at: Annotated[
        int, typer.Option("--at", min=1, help="The archive's number, as `podctl archives` shows it.")
    ],
    what: Annotated[
        What, typer.Option(help="What goes back; with `both` the number is the pod's.")
    ] = What.BOTH,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is as wanted again.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, max=86_400, help="How long --wait waits, seconds.")
    ] = 300.0,
    json: Json = False,
) -> None:
    """Go back to an earlier archive. What is there now is saved first, as a new archive."""
    with told(as_json=json):
        client = connect()
        found = client.restore(find_pod(client, pod), at, what)
        if wait:
            found = _settled(client, found.pod_id, timeout)
        show.as_json(found) if json else show.state(found)


def recover(pod: Pod, json: Json = False) -> None:
    """From any stuck state: say what is wrong, save what is there, start anew. Deletes nothing."""
    with told(as_json=json):
        client = connect()
        outcome = client.recover(find_pod(client, pod))
        if json:
            show.as_json(outcome)
            return
        for head, lines in (("Found:", outcome.found), ("Done:", outcome.done), ("To do:", outcome.advice)):
            for line in lines:
                show.line(f"{head:<7} {line}")


def download(
    pod: Pod,
    form: Annotated[
        ExportForm, typer.Option("--format", help="A tar with everything, a zip, or an OCI image.")
    ] = ExportForm.TAR,
    what: Annotated[
        ExportWhat, typer.Option(help="The user's files, what was changed in the image, or both.")
    ] = ExportWhat.WORKSPACE,
    at: Annotated[
        int | None, typer.Option(min=1, help="The archive's number; default: the current one.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: standard output.")] = None,
) -> None:
    """Write the user's files, or what is installed in a pod, from its archive to standard output."""
    if output is None and sys.stdout.isatty():
        raise typer.BadParameter("send it to a file: `> FILE`, or --output FILE")
    asked, notes = {"format": form, "what": what, "at": at}, OciNotes()
    with told(as_json=False):
        client = connect()
        with client.download(find_pod(client, pod), asked) as answer:
            saved_at = answer.headers.get("Codepods-Archived-At", "?")
            number = answer.headers.get("Codepods-Archive-Number", "?")
            print(f"Archive {number}, saved {saved_at}", file=sys.stderr)
            with written(output) as file:
                for chunk in answer.iter_raw():
                    file.write(chunk)
                    notes.see(chunk)
        if form is ExportForm.OCI:
            print(f"Not in the image as it was: {notes.not_kept() or _UNTOLD}", file=sys.stderr)


def import_(
    pod: Pod,
    source: Annotated[
        Path,
        typer.Argument(help="A folder, a tar (plain, gzip, zstd, xz), or an image; - for standard input."),
    ],
    form: Annotated[
        ImportForm, typer.Option("--format", help="A tar of files, or an OCI image of a pod.")
    ] = ImportForm.TAR,
    new: Annotated[
        bool, typer.Option("--new", help="Make the pod USER/NAME of it, and wait until it is there.")
    ] = False,
    lab: Annotated[str | None, typer.Option(help="With --new: the pod's lab.")] = None,
    timeout: Annotated[float, typer.Option(min=0, max=86_400, help="How long --new waits, seconds.")] = 300.0,
    json: Json = False,
) -> None:
    """Make an archive of a folder, a tar or an image. `restore` takes it into use."""
    if lab is not None and not new:
        raise typer.BadParameter("--lab goes with --new")
    with told(as_json=json):
        client = connect()
        pod_id = _made(client, pod, lab, timeout) if new else find_pod(client, pod)
        with tar_of(source) as chunks:
            found = client.import_files(pod_id, chunks, form)
        if new:
            client.restore(pod_id, found.number, found.what)
            _settled(client, pod_id, timeout)
        if json:
            show.as_json(found)
        else:
            show.line(f"Archive {found.number}.")
        if not new and not json:
            show.line(f"To use it: podctl restore {pod} --what {found.what} --at {found.number}")


def _made(client: Client, ref: str, lab: str | None, timeout_s: float) -> str:
    """A new pod's id, once it runs. Raises a usage error, `Failed` where there is one of this name."""
    user, separator, name = ref.rpartition("/")
    if not separator:
        raise typer.BadParameter("with --new the pod is USER/NAME", param_hint="POD")
    if any(one.name == name and one.desired != "deleted" for one in client.pods(user, PODS_OF_USER_MAX)):
        raise Failed(
            "pod_differs", f"{user} has a pod named {name}.", "Leave out --new, or take another name."
        )
    made = client.create({"user": user, "name": name, **({"lab": lab} if lab else {})})
    _settled(client, made.pod_id, timeout_s)
    return made.pod_id


def _settled(client: Client, pod_id: str, timeout_s: float) -> wire.Pod:
    with waiting.shown(Console(stderr=True)) as progress:
        return waiting.wait_settled(client, pod_id, waiting.Patience(timeout_s), progress)


def alarms(json: Json = False) -> None:
    """Show what somebody should look at."""
    with told(as_json=json):
        found = connect().alarms()
        show.as_json(found) if json else show_alarms(found)


def show_alarms(found: list[wire.Alarm]) -> None:
    """A line each; a word when there is none."""
    for alarm in found:
        show.line(f"{alarm.raised_at:%Y-%m-%d %H:%M:%S} {alarm.kind}: {alarm.message}")
    if not found:
        show.line("No alarms.")


def _table(found: list[wire_archives.Generation]) -> None:
    rows = (
        (
            one.what,
            str(one.number),
            f"{one.committed_at:%Y-%m-%d %H:%M:%S}",
            f"{one.size_bytes / 1_000_000:.1f}",
            "current" if one.current else "",
            "live" if one.live else "",
            f"damaged: {one.damaged}" if one.damaged else f"whole {show.ago(one.whole_at)}",
            "; ".join(one.notices),
        )
        for one in found
    )
    show.table(("WHAT", "NUMBER", "SAVED (UTC)", "MB", "", "TAKEN", "STATE", "NOTICES"), rows)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (archives, restore, recover, download, alarms):
        app.command()(command)
    app.command("import")(import_)
