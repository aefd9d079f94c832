"""What an archive and a restore cost, beside what the same bytes cost with public tools alone.

    .venv/bin/python -m bench.archive [--quick] [--check] [--store directory|s3]

Needs root, a Docker engine on overlay2 and the pod image that `make up` builds. Both sides of each row run in
turn, in one run, into one store: a directory, or rclone's S3 server in front of one. Bytes are exact; seconds
hold for this machine in this hour only, the ratio of the medians is the figure to keep. `--check` exits 1
when a row misses its target, and names those rows last.
"""

import argparse
import logging
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

import structlog

from bench.archive_baselines import Baseline, DirectoryBaseline, S3Baseline, compressed_bytes, seeds_way
from bench.archive_chain import CHAIN, SECOND_BYTES_MAX, SECOND_S_MAX, Chain
from bench.archive_pods import BenchNode, pod_with
from bench.table import Row, mb, ms, show
from bench.usage import Usage, busy_s, processor_s
from node_agent.archive.commit import (
    ArchiveRequest,
    ArchiveResult,
    NodeMemory,
    unconditionally,
    write_archive,
)
from node_agent.archive.fingerprint import scan_tree
from node_agent.archive.memory import Memory
from node_agent.archive.restore import restore_archive
from node_agent.archive.turns import Turns
from node_agent.open_store import open_store
from node_agent.settings import Settings
from node_agent.store import Store
from state.model import TargetKind
from state.wire import ArchiveMade
from tests.support.docker_node import own_pod
from tests.support.s3_servers import BUCKET, CREDENTIALS, rclone_server

SMALL, LARGE = own_pod("small"), own_pod("large")
SMALL_FILES, SMALL_BYTES = 500, 8 * 10**6
LARGE_FILES, LARGE_BYTES = 20_000, 300 * 10**6
FOLDERS = 20
MEMORY_MIB_MAX = 128
RUN_S_MAX = 1800
# What a page takes differs more from one time to the next than what codepods adds to it.
PAGE_ROUNDS = 3
# A round waits for a machine that is at most this busy, all rounds together at most this long.
QUIET_SHARE_MAX, QUIET_LOOK_S, PATIENCE_S = 0.15, 0.25, 120
# Real files of this machine, cut to size: they compress as a learner's files do.
CORPUS = (Path("/usr/lib"), Path("/usr/share"))


class Bench:
    """The store, the public tools beside it, and the trees; everything lies below one directory."""

    def __init__(self, root: Path, store_url: str, baseline: Baseline, rounds: int) -> None:
        self.root = root
        self.store_url = store_url
        self.store: Store = open_store(store_url)
        self.baseline = baseline
        self.rounds = rounds
        self._numbers = count(1)
        # Without a base: each archive is a whole one, and is taken down for the next, as the agent does it.
        self._node = NodeMemory(Memory(root / "memory"))
        self._turns = Turns(Settings(node_id="bench").uploads_at_once)
        self._patience_s = float(PATIENCE_S)

    def fresh(self, name: str) -> Path:
        """A path that nothing uses."""
        return self.root / f"{name}-{next(self._numbers)}"

    def archive(self, source: Path) -> ArchiveResult:
        """What the agent does with a stopped pod's tree."""
        request = ArchiveRequest(
            kind=TargetKind.POD,
            target_id="p-bench",
            user_id="bench",
            epoch=1,
            attempt=next(self._numbers),
            number=1,
            created_at=datetime.now(UTC),
            fingerprint={"tree": "bench"},
            method="overlay2-upper",
        )
        turn = partial(self._turns.one, unconditionally)
        return write_archive(self.store, request, source, node=self._node, turn=turn)

    def restore(self, made: ArchiveResult) -> None:
        """Into a fresh directory, which stays until the end: ext4 is slow where much was just deleted."""
        target = self.fresh("restored")
        target.mkdir()
        restore_archive(self.store, made.manifest, target)

    def in_turn(
        self,
        ours: Callable[[], object],
        base: Callable[[], object],
        after: Callable[[], object] = int,
        times: int = 1,
    ) -> tuple[float, float, float]:
        """Median seconds of both, run by turns, each first in every other round, and the ratio of the
        fastest; what comes after each is not counted. `times` as many rounds as usual."""
        sides = [(ours, mine := list[float]()), (base, theirs := list[float]())]
        for _ in range(times * self.rounds):
            self._await_quiet()
            for step, seconds in sides:
                seconds.append(timed(step))
                after()
            sides.reverse()
        return statistics.median(mine), statistics.median(theirs), min(mine) / min(theirs)

    def _await_quiet(self) -> None:
        """Until nobody else uses the machine, as long as there is patience left."""
        while self._patience_s > 0:
            busy, began = busy_s(), time.monotonic()
            time.sleep(QUIET_LOOK_S)
            self._patience_s -= time.monotonic() - began
            if busy_s() - busy < QUIET_SHARE_MAX * QUIET_LOOK_S * (os.cpu_count() or 1):
                return


def timed(step: Callable[[], object]) -> float:
    """Seconds that a step takes."""
    began = time.monotonic()
    step()
    return time.monotonic() - began


def make_tree(root: Path, files: int, size_bytes: int) -> None:
    """Pieces of this machine's own files, in folders."""
    pieces = _pieces(size_bytes // files)
    for number in range(files):
        folder = root / f"d{number % FOLDERS:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(next(pieces))


def _pieces(piece_bytes: int) -> Iterator[bytes]:
    for path in (path for top in CORPUS for path in sorted(top.rglob("*"))):
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        for start in range(0, len(data) - piece_bytes + 1, piece_bytes):
            yield data[start : start + piece_bytes]


# ---- rows ----------------------------------------------------------------------------------------------


def small_rows(bench: Bench, container_id: str, upper: Path) -> Iterator[Row]:
    """8 MB in 500 files on the pod image."""
    made = bench.archive(upper)
    ours = made.manifest.size_bytes
    files = compressed_bytes(upper)
    yield Row("bytes uploaded / compressed size of the changed files", mb(ours), mb(files), ours / files, 1.1)
    seeds: list[int] = []
    slow = timed(lambda: seeds.append(seeds_way(bench.baseline, container_id)))
    yield Row("bytes of docker save / bytes uploaded", mb(ours), mb(seeds[0]), seeds[0] / ours, 300, True)
    fast, tar, best = bench.in_turn(lambda: bench.archive(upper), lambda: bench.baseline.save(upper))
    name = "archive time / tar | zstd into the same store"
    yield Row(name, ms(fast), ms(tar), fast / tar, 1.3, fastest=best)
    yield Row("commit + save + upload / archive time", ms(fast), ms(slow), slow / fast, 50, True)


def large_rows(bench: Bench, tree: Path) -> Iterator[Row]:
    """300 MB in 20,000 files."""
    fast, tar, best = bench.in_turn(lambda: bench.archive(tree), lambda: bench.baseline.save(tree))
    name = "archive rate / tar --zstd into the same store"
    yield Row(name, ms(fast), ms(tar), tar / fast, 0.7, True, 1 / best)
    mine, theirs = processor_s(lambda: bench.archive(tree)), processor_s(lambda: bench.baseline.save(tree))
    yield Row("the same, processor time", ms(mine), ms(theirs), mine / theirs)
    made, key = bench.archive(tree), bench.baseline.save(tree)
    fast, bare, best = bench.in_turn(lambda: bench.restore(made), lambda: _load(bench, key))
    yield Row("restore time / bare download + unpack", ms(fast), ms(bare), fast / bare, fastest=best)


def _load(bench: Bench, key: str) -> None:
    target = bench.fresh("unpacked")
    target.mkdir()
    bench.baseline.load(key, target)


def chain_rows(bench: Bench, tree: Path) -> Iterator[Row]:
    """What the second archive of a known tree costs, and the restore of one that fifty have led to."""
    chain = Chain(bench.store, bench.fresh("memory"), tree)
    chain.archive()

    def change_and_wait() -> None:
        chain.change()
        time.sleep(0.05)

    change_and_wait()
    both, scan, _ = bench.in_turn(chain.archive, lambda: scan_tree(tree), after=change_and_wait)
    over = max(both - scan, 0)
    name = f"second archive, 1 of 20,000 files changed, over the stat scan / {SECOND_S_MAX} s"
    yield Row(name, ms(over), ms(scan), over / SECOND_S_MAX, 1)
    name = f"bytes of the same / {SECOND_BYTES_MAX // 10**6} MB"
    yield Row(name, mb(chain.new_bytes), mb(SECOND_BYTES_MAX), chain.new_bytes / SECOND_BYTES_MAX, 1)
    for _ in range(CHAIN):
        change_and_wait()
        chain.archive()
    long = chain.archive()
    whole = chain.archive(whole=True)
    ours, one, best = bench.in_turn(lambda: bench.restore(long), lambda: bench.restore(whole))
    name = f"restore after {CHAIN} archives ({len(long.manifest.layers)} layers) / one layer of the same"
    yield Row(name, ms(ours), ms(one), ours / one, 1.3, fastest=best)


def page_rows(bench: Bench, node: BenchNode, pod_id: str, saved: ArchiveMade, size: str) -> Iterator[Row]:
    """From the archive to the IDE's page, the image on the node; the same pod's plain start beside it."""
    key = bench.baseline.save(node.upper(pod_id))
    ours, start, best = bench.in_turn(
        lambda: node.open_archived(pod_id, saved),
        lambda: node.plain_start(pod_id),
        after=node.stop_started,
        times=PAGE_ROUNDS if size == "8 MB" else 1,
    )
    bare = statistics.median(timed(lambda: _load(bench, key)) for _ in range(bench.rounds))
    if size == "8 MB":
        name = "archived → page, 8 MB / docker start → page"
        yield Row(name, ms(ours), ms(start), ours / start, 1.2, fastest=best)
        return
    yield Row(f"archived → page, {size} / bare download + unpack", ms(ours), ms(bare), ours / bare, 1.3)
    both = bare + start
    yield Row(f"archived → page, {size} / the same and docker start", ms(ours), ms(both), ours / both)


def memory_row(bench: Bench, tree: Path) -> Row:
    """As many archives as an agent has under way, and a restore; the peak over what it had when idle."""
    target = bench.fresh("restored")
    target.mkdir()
    argv = [sys.executable, "-m", "bench.archive_memory", bench.store_url, str(tree), str(target)]
    grown = int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout) / 1024
    name = f"peak memory above idle, MiB / {MEMORY_MIB_MAX} MiB"
    return Row(name, f"{grown:.0f} MiB", f"{MEMORY_MIB_MAX} MiB", grown / MEMORY_MIB_MAX, 1)


def crowd_row(bench: Bench, tree: Path) -> Row:
    """20 pods asked for at once, as many at a time as the agent takes: the scarcer of store and cores."""
    sources = sorted(tree.iterdir())
    lanes = Settings(node_id="bench").archives_under_way_max
    with ThreadPoolExecutor(lanes) as pool, Usage(bench.baseline.server_pid) as usage:
        made = list(pool.map(bench.archive, sources))
    bytes_s = sum(result.manifest.size_bytes for result in made) / usage.seconds
    store_bytes_s = bench.baseline.bandwidth()
    ours = f"{mb(bytes_s)}/s, {usage.share:.0%} of the cores"
    best = max(usage.share, bytes_s / store_bytes_s)
    return Row(f"{len(sources)} pods at once", ours, f"{mb(store_bytes_s)}/s", best, 0.9, True)


def restic_rows(bench: Bench, tree: Path) -> Iterator[Row]:
    """restic on the same tree, where it is installed. No targets: it does more, and other things."""
    repository = bench.fresh("restic")
    environment = {**os.environ, "RESTIC_REPOSITORY": str(repository), "RESTIC_PASSWORD": "bench"}
    environment["RESTIC_CACHE_DIR"] = str(bench.fresh("restic-cache"))

    def restic(*arguments: str) -> None:
        subprocess.run(["restic", "-q", *arguments], env=environment, check=True, capture_output=True)

    restic("init")
    backup = partial(restic, "backup", str(tree))
    ours: list[ArchiveResult] = []
    first, theirs = timed(lambda: ours.append(bench.archive(tree))), timed(backup)
    size = sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())
    mine = ours[0].manifest.size_bytes
    yield Row("restic: first, time", ms(first), ms(theirs), first / theirs)
    yield Row("restic: first, bytes", mb(mine), mb(size), mine / size)
    chain = Chain(bench.store, bench.fresh("memory"), tree)
    chain.archive()
    chain.change()
    first, theirs = timed(chain.archive), timed(backup)
    yield Row("restic: second, 1 file changed, time", ms(first), ms(theirs), first / theirs)
    first = timed(lambda: bench.restore(ours[0]))
    theirs = timed(lambda: restic("restore", "latest", "--target", str(bench.fresh("restored"))))
    yield Row("restic: restore, time", ms(first), ms(theirs), first / theirs)


# ---- the run -------------------------------------------------------------------------------------------


@contextmanager
def bench_in(kind: str, rounds: int) -> Iterator[Bench]:
    """A store, and a directory for everything that goes when the run ends."""
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="codepods-bench-"))
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        folder = root / "store"
        folder.mkdir()
        if kind == "directory":
            yield Bench(root, f"file://{folder}", DirectoryBaseline(folder), rounds)
            return
        os.environ.update(CREDENTIALS)
        endpoint = stack.enter_context(rclone_server(folder, root / "rclone.log"))
        url = f"s3://{BUCKET}/ours?endpoint={endpoint}"
        # The only child so far.
        server_pid = int(Path(f"/proc/self/task/{os.getpid()}/children").read_text())
        yield Bench(root, url, S3Baseline(endpoint, BUCKET, server_pid), rounds)


def rows(bench: Bench, node: BenchNode, *, quick: bool) -> Iterator[Row]:
    """Every row that can be measured, as it is measured."""
    small, large = bench.fresh("small"), bench.fresh("large")
    make_tree(small, SMALL_FILES, SMALL_BYTES)
    make_tree(large, LARGE_FILES // (5 if quick else 1), LARGE_BYTES // (5 if quick else 1))
    container = pod_with(node, SMALL, small)
    yield from small_rows(bench, container.id, node.upper(SMALL))
    yield from large_rows(bench, large)
    pod_with(node, LARGE, large)
    # Both are saved before the first is opened again: an opened pod's placement ends the earlier ones.
    saved_small, saved_large = node.saved(SMALL), node.saved(LARGE)
    yield from page_rows(bench, node, SMALL, saved_small, "8 MB")
    yield from page_rows(bench, node, LARGE, saved_large, "60 MB" if quick else "300 MB")
    yield from chain_rows(bench, large)
    yield memory_row(bench, large)
    yield crowd_row(bench, large)
    if shutil.which("restic"):
        yield from restic_rows(bench, large)


def bound_the_run() -> None:
    """A run that takes too long, or is told to end, cleans up after itself too."""

    def end(number: int, _frame: object) -> None:
        sys.exit(f"ended by {signal.Signals(number).name}; a run may take {RUN_S_MAX} s")

    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, end)
    signal.alarm(RUN_S_MAX)


def main() -> None:
    """Measure, print the table; with --check, exit 1 when a row misses its target."""
    parser = argparse.ArgumentParser(prog="bench.archive")
    parser.add_argument("--quick", action="store_true", help="two rounds, a fifth of the large tree")
    parser.add_argument("--check", action="store_true", help="exit 1 when a row misses its target")
    parser.add_argument("--store", choices=("directory", "s3"), default="directory")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    bound_the_run()
    began = os.getloadavg()
    with bench_in(asked.store, 2 if asked.quick else 5) as bench:
        node = BenchNode(bench.root, bench.store)
        try:
            found = list(rows(bench, node, quick=asked.quick))
        finally:
            node.clean_up()
    show(found)
    print(f"load average before {began[0]:.2f}, after {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    missed = [row.name for row in found if row.missed]
    if asked.check and missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
