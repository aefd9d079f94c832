"""From the call to the API until the last byte: what the documented 10 s are for."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Thread

from api.access_files import ensure_revoked
from api.access_token import Keyring
from compose.nginx_config import edge_command
from compose.processes import wait_until
from tests.integration.test_proxy_revocation import download, ends, is_cut
from tests.support.api_server import ApiServer
from tests.support.front import Front, front_door, socket_to
from tests.support.nginx import WORKER_USER, front_directory, running_nginx
from tests.support.ports import free_port

# docs/access.md, "Throwing somebody out".
REVOKED_WITHIN_S = 10.0


def test_within_ten_seconds_nothing_goes_on(database_url: str) -> None:
    """Pages, a socket and a download of somebody who was thrown out; the real API, nginx and edge."""
    with front_directory() as directory, front_door(directory) as front:
        home = directory / "control"
        home.mkdir(mode=0o755)
        server = ApiServer.on(database_url, home)
        # What it writes beside the ring is for whom the ring is.
        keyring = Keyring.load(server.settings.keyring)
        keyring.save(server.settings.keyring, group=WORKER_USER)
        ensure_revoked(server.settings.keyring)
        with server as api:
            settings = replace(
                front.nginx.settings,
                prefix=directory / "own",
                runtime=directory / "run-own",
                keyring=api.settings.keyring,
                https_port=free_port(),
                http_port=None,
            )
            with (
                running_nginx(settings) as nginx,
                subprocess.Popen(edge_command(settings)) as edge,
            ):
                try:
                    took = _thrown_out(replace(front, nginx=nginx, keyring=keyring), api)
                finally:
                    edge.terminate()

    print({what: f"{seconds:.1f} s" for what, seconds in took.items()})
    assert set(took) == {"pages", "socket", "download"}
    assert max(took.values()) <= REVOKED_WITHIN_S, took


def _thrown_out(front: Front, api: ApiServer) -> dict[str, float]:
    """How long after the call each of them was over."""
    cookie = front.cookie("pod-a", user="mallory")
    took: dict[str, float] = {}

    def page_is_refused() -> bool:
        return front.nginx.ask("/pods/pod-a/", [cookie]).status == 403

    with (
        socket_to(front, "/pods/pod-a/ws", cookie) as connection,
        download(front, "/pods/pod-a/vscode-remote-resource", cookie) as file,
        api.client() as admin,
    ):
        assert not page_is_refused()
        began = time.monotonic()
        revoked = admin.post("/api/v1/revocations", json={"kind": "user", "subject": "mallory"})
        assert revoked.status_code == 201

        def watch(what: str, over: Callable[[], bool]) -> Thread:
            def look() -> None:
                if wait_until(over, 3 * REVOKED_WITHIN_S):
                    took[what] = time.monotonic() - began

            thread = Thread(target=look)
            thread.start()
            return thread

        looks = {
            "pages": page_is_refused,
            "socket": lambda: is_cut(connection),
            "download": lambda: ends(file),
        }
        for thread in [watch(what, over) for what, over in looks.items()]:
            thread.join()
    return took
