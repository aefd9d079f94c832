"""A real engine of our own whose storage driver has no upper directory, and an image small enough for it."""

import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from tests.support.patience import PATIENCE_S

IMAGE = "codepods-small:1"
PROGRAMS = ("sh", "sleep", "rm", "xargs", "mkdir", "ln", "touch", "cat", "ls", "stat", "chmod", "tr", "id")


@contextmanager
def vfs_engine(folder: Path) -> Iterator[str]:
    """Its address, for as long as the block lasts. The image `IMAGE` is on it."""
    url = f"unix://{folder}/docker.sock"
    # In a network of its own: with --bridge=none an engine takes the machine's docker0 away.
    argv = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec dockerd "$@"', "dockerd"]
    argv += ["--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip6tables=false"]
    argv += [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([*argv, f"--host={url}"], stderr=log) as process,
    ):
        try:
            _await(url, folder / "log")
            docker(url, "import", "--change", 'CMD ["sleep", "600"]', "-", IMAGE, given=small_root())
            yield url
        finally:
            process.terminate()
            process.wait()


def docker(url: str, *arguments: str, given: bytes | None = None) -> str:
    """Run the engine's own command line; what it printed."""
    argv = ["docker", "--host", url, *arguments]
    return subprocess.run(argv, input=given, capture_output=True, check=True, timeout=120).stdout.decode()


def _await(url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while subprocess.run(["docker", "--host", url, "info"], capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def small_root(programs: Sequence[str] = (), files: Sequence[str] = ()) -> bytes:
    """This machine's own shell and a few programs, with the libraries that they need; and more of its own."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        all_programs = [*_programs(), *programs]
        libraries = {library for program in all_programs for library in _libraries(program)}
        for path in sorted({*all_programs, *libraries, *files}):
            tar.add(path, arcname=path.lstrip("/"))
        for name in ("tmp", "workspaces", "run/codepods", "etc/kept", "etc/gone"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for name in ("etc/gone/inside", "etc/kept/old", "etc/replaced", "etc/deleted"):
            tar.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def _programs() -> list[str]:
    return [f"/usr/bin/{name}" for name in PROGRAMS if name != "sh"] + ["/bin/sh"]


def _libraries(program: str) -> list[str]:
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [word for word in said.split() if word.startswith("/")]
