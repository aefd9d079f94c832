"""Clients that are gone without a word: the cable is pulled in a network namespace of their own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.support.front import Front, front_door
from tests.support.learners_network import LearnersNetwork, learners_network
from tests.support.nginx import front_directory, running_nginx

ROOT = Path(__file__).resolve().parents[2]
# Above what is promised (30 s) by what a busy machine may take; far below what TCP alone takes when it has
# something to send (15 minutes).
NOTICED_S_MAX = 60.0
CLIENT = """
import ssl, sys
from websockets.sync.client import connect
tls = ssl.create_default_context(); tls.check_hostname = False; tls.verify_mode = ssl.CERT_NONE
tls.maximum_version = ssl.TLSVersion.TLSv1_2  # RunningNginx.tls_for_sockets says why
cookie = {"Cookie": sys.argv[2]}
with connect(sys.argv[1], ssl=tls, additional_headers=cookie, proxy=None, ping_interval=None) as one:
    print("open", flush=True)
    for text in one:
        pass
"""


@contextmanager
def client(python: Path, uri: str, cookie: str) -> Iterator[None]:
    """A socket from the other end of the cable, once it is open."""
    command = [str(python), "-c", CLIENT, uri, cookie]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield
        finally:
            process.kill()


def test_who_vanished_is_noticed_silent_or_not(tmp_path: Path) -> None:
    """Nothing to send, and a pod that talks all the time: both ends are told, after a reload too."""
    with (
        front_directory() as directory,
        learners_network(tmp_path, sys.executable) as network,
        front_door(directory) as front,
    ):
        settings = replace(
            front.nginx.settings,
            prefix=directory / "far",
            runtime=directory / "run-far",
            listen_addresses=(network.here,),
        )
        with running_nginx(settings) as front.nginx:
            front.nginx.reload()
            front.hints.listener.settimeout(NOTICED_S_MAX)
            _vanish_and_be_noticed(front, network)


def _vanish_and_be_noticed(front: Front, network: LearnersNetwork) -> None:
    base = f"wss://{network.here}:{front.nginx.settings.https_port}/pods/pod-a"
    silent, talking = (front.cookie("pod-a", session_id=session)[1] for session in ("silent", "talking"))
    with client(network.browser, f"{base}/ws", silent), client(network.browser, f"{base}/talks", talking):
        front.hints.of("silent", "open")
        front.hints.of("talking", "open")
        with network.cut():
            ended = [front.hints.of(session, "close") for session in ("silent", "talking")]
    print({line["session"]: line["seconds"] for line in ended})
