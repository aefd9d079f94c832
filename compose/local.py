"""codepods on this machine: what `make up`, `make down`, `make clean` and `podctl up` do.

Each function prints to the terminal and returns the exit code: 0 done, 1 refused or failed with the reason.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape

from compose import machine, running, shown, stopping
from compose.environment import Environment, environment_of, save_settings, saved_settings
from compose.installation import Installation, load_installation, save_installation, with_nodes
from compose.layout import Layout, find_home, make_directories
from compose.lock import is_running
from compose.ports import require_free
from compose.problems import ProblemError
from compose.progress import Progress

EXIT_PROBLEM = 1

_console = Console(highlight=False, soft_wrap=True)
_errors = Console(highlight=False, soft_wrap=True, stderr=True)


def up(nodes: int | None = None, *, detach: bool = False) -> int:
    """Start everything; return when it answers (`detach`), or stay until Ctrl-C, which is `down`.

    `nodes` is how many node agents to run; None: as many as the last time, one at first.
    """
    return _told(lambda: _up(nodes, detach))


def down() -> int:
    """Stop everything, the pods too, and keep the data."""
    return _told(_down)


def clean(*, yes: bool = False) -> int:
    """Remove the containers, volumes and networks of this installation, and its home, after asking."""
    return _told(lambda: _clean(yes))


def psql(arguments: Sequence[str] = ()) -> int:
    """psql on the installation's database as `codepods_admin`; its exit code."""
    return _told(lambda: _psql(arguments))


def status() -> int:
    """Show programs, ports and pods."""
    return _told(_status)


def _told(do: Callable[[], int]) -> int:
    try:
        return do()
    except ProblemError as error:
        _errors.print(f"[red]✗[/] {escape(str(error))}")
        return EXIT_PROBLEM
    except KeyboardInterrupt:
        _console.print("Interrupted.")
        return EXIT_PROBLEM


def _up(nodes: int | None, detach: bool) -> int:
    began_at = time.monotonic()
    layout = _layout()
    if is_running(layout):
        return _up_already(layout, nodes)
    environment = _prepare(layout, nodes)
    progress = Progress(_console)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        running.start(environment, progress)
        code = _show_first_pod(environment, progress)
        shown.show_hints(_console, environment, time.monotonic() - began_at, detached=detach)
        if not detach:
            running.follow(environment.layout, lambda entry: shown.show_event(_console, entry))
    except KeyboardInterrupt:
        progress.leave()
        _console.print("Stopping, for Ctrl-C was pressed. The data is kept.")
        return _down()
    return code


def _show_first_pod(environment: Environment, progress: Progress) -> int:
    """What does not let one pod start need not end the system: it can be looked into while it runs."""
    try:
        shown.show_first_pod(_console, progress, environment)
    except ProblemError as error:
        _errors.print(f"[red]✗[/] {escape(str(error))}\n  The system runs: podctl explain says more.")
        return EXIT_PROBLEM
    return 0


def _prepare(layout: Layout, nodes: int | None) -> Environment:
    """What can be known to be wrong before anything is started is told now."""
    installation = with_nodes(load_installation(layout), nodes)
    stopping.end_leftovers(layout)
    draft = environment_of(layout, installation)
    machine.check(draft)
    require_free(draft.ports, draft.listen_address, besides=_ports_of_others(draft))
    make_directories(layout, installation.node_ids)
    layout = _layout()
    environment = environment_of(layout, installation)
    save_installation(installation, layout.config)
    save_settings(environment)
    for line in machine.notices(environment):
        _console.print(f"  [yellow]![/] {escape(line)}")
    return environment


def _ports_of_others(environment: Environment) -> tuple[str, ...]:
    """The operator's own PostgreSQL is somewhere else."""
    return ("postgres",) if environment.database_url else ()


def _up_already(layout: Layout, nodes: int | None) -> int:
    environment = _known_environment()
    count = len(environment.installation.running)
    _console.print(
        f"codepods is up already, with {count} node{'s' if count > 1 else ''}: {environment.base_url}"
    )
    if nodes is not None and nodes != count:
        raise ProblemError(f"To run {nodes} nodes, stop it first: make down && make up NODES={nodes}")
    progress = Progress(_console)
    running.wait_until_ready(layout, progress)
    shown.show_first_pod(_console, progress, environment)
    return 0


def _down() -> int:
    installation = _installation()
    if installation is None:
        _console.print("There is nothing to stop: codepods has not been started here.")
        return 0
    stopping.stop(_layout(), installation, Progress(_console))
    _console.print("Stopped. The data is kept: `make up` brings it back, `make clean` removes it.")
    return 0


def _clean(yes: bool) -> int:
    layout, installation = _layout(), _installation()
    if installation is None:
        _console.print(f"There is nothing to remove: {layout.home} holds no installation.")
        return 0
    if not yes and not _confirmed(layout, installation):
        _console.print("Nothing was removed.")
        return EXIT_PROBLEM
    stopping.stop(layout, installation, Progress(_console))
    stopping.remove(layout, installation, Progress(_console))
    if not find_home().exists() and find_home().is_symlink():
        find_home().unlink()
    _console.print("Removed.")
    return 0


def _confirmed(layout: Layout, installation: Installation) -> bool:
    _console.print(
        f"This removes, for good: {layout.home}, with the database and all archives in it, and every "
        f"container, volume and network of {', '.join(installation.node_ids)}."
    )
    if not sys.stdin.isatty():
        raise ProblemError("Nobody is there to ask. To mean it: make clean YES=1")
    return _console.input("Type 'remove' to go on: ").strip() == "remove"


def _psql(arguments: Sequence[str]) -> int:
    # Not at the top: what it needs takes longer to load than most commands here take.
    from compose.database import run_psql

    return run_psql(_known_environment(), arguments)


def _status() -> int:
    layout = _layout()
    shown.show_status(_console, _known_environment(), running=is_running(layout))
    return 0


def _layout() -> Layout:
    return Layout(find_home().resolve())


def _installation() -> Installation | None:
    return load_installation(_layout())


def _known_environment() -> Environment:
    installation = _installation()
    if installation is None:
        raise ProblemError(f"codepods has not been started here ({_layout().config} is not there): make up")
    layout = _layout()
    as_started = saved_settings(layout) if is_running(layout) else {}
    return environment_of(layout, installation, {**os.environ, **as_started})


def main() -> int:
    """`python -m compose.local up|down|clean|psql|status`."""
    parser = argparse.ArgumentParser(prog="python -m compose.local", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help="start everything")
    up_parser.add_argument("--nodes", type=int, help="how many node agents (default: as the last time)")
    up_parser.add_argument("--detach", action="store_true", help="return when the system answers")
    commands.add_parser("down", help="stop everything, keep the data")
    clean_parser = commands.add_parser("clean", help="remove everything, the data too")
    clean_parser.add_argument("--yes", action="store_true", help="do not ask")
    commands.add_parser("status", help="show programs, ports and pods")
    commands.add_parser("psql", help="psql as codepods_admin", add_help=False)
    asked, rest = parser.parse_known_args()
    if rest and asked.command != "psql":
        parser.error(f"unknown: {' '.join(rest)}")
    runs: dict[str, Callable[[], int]] = {
        "up": lambda: up(asked.nodes, detach=asked.detach),
        "down": down,
        "clean": lambda: clean(yes=asked.yes),
        "psql": lambda: psql(rest),
        "status": status,
    }
    return runs[asked.command]()


if __name__ == "__main__":
    sys.exit(main())
