"""What nginx is handed: its listening sockets, as it needs them."""

import json
import subprocess
import sys
from pathlib import Path

_SHOW = """
import json, os
numbers = [int(number) for number in os.environ["NGINX"].split(";") if number]
print(json.dumps([os.get_blocking(number) for number in numbers]))
"""


def test_no_socket_of_nginx_blocks(tmp_path: Path) -> None:
    """Two workers wake for one connection; on a socket that blocks, the later one would sleep for ever."""
    command = [sys.executable, "-m", "compose.listeners", "--tcp", "127.0.0.1:0"]
    command += ["--unix", str(tmp_path / "gate.sock"), "--", sys.executable, "-c", _SHOW]

    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert json.loads(shown.stdout) == [False, False]
