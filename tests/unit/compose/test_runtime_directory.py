"""The directory in memory: where it is, and that it is ours."""

import os
import stat
from pathlib import Path

import pytest

from compose.problems import ProblemError
from compose.runtime_directory import claim, discard, runtime_directory

SHARED_MEMORY = Path("/dev/shm")


def test_each_home_has_one_of_its_own_in_memory(tmp_path: Path) -> None:
    """The same for the same home; not below what is on a disk."""
    here = runtime_directory(tmp_path, (tmp_path, SHARED_MEMORY))

    assert here.parent == SHARED_MEMORY
    assert here == runtime_directory(tmp_path, (SHARED_MEMORY,))
    assert here != runtime_directory(tmp_path / "other", (SHARED_MEMORY,))


def test_without_memory_it_says_what_to_do(tmp_path: Path) -> None:
    """Secrets are not put on a disk instead."""
    with pytest.raises(ProblemError, match="mount -t tmpfs"):
        runtime_directory(tmp_path, (tmp_path,))


def test_what_is_claimed_is_closed_to_others(tmp_path: Path) -> None:
    """Whatever mode it had; again changes nothing."""
    for _ in range(2):
        claim(tmp_path / "run", None)
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
        (tmp_path / "run").chmod(0o777)


def test_nothing_of_it_stays(tmp_path: Path) -> None:
    """What was kept there opens sessions."""
    here = runtime_directory(tmp_path, (SHARED_MEMORY,))
    claim(here, None)
    (here / "gate").write_text("secret")

    for _ in range(2):
        discard(tmp_path)
        assert not here.exists()


@pytest.mark.parametrize("kind", ["link", "file", "stranger"])
def test_somebody_elses_is_not_used(tmp_path: Path, kind: str) -> None:
    """In a directory that all may write, another could have been there first."""
    ours, run = tmp_path / "ours", tmp_path / "run"
    ours.mkdir()
    {"link": lambda: run.symlink_to(ours), "file": run.touch, "stranger": run.mkdir}[kind]()
    if kind == "stranger":
        os.chown(run, 12_345, -1)

    with pytest.raises(ProblemError, match="not ours"):
        claim(run, None)
