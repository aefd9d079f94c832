"""A way between agents and their gateway on which every message looks as if a newer version had sent it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

UNKNOWN_VERB = "hibernate_pod"
FORWARD_TIMEOUT_S = 60
# What callers name themselves: a new key there is one more name, and no field.
NAMED_BY_USERS = frozenset({"epochs", "request", "result", "detail"})


def as_if_newer(message: Any) -> Any:
    """With a field that nobody knows in every object of it."""
    if isinstance(message, list):
        return [as_if_newer(item) for item in message]
    if not isinstance(message, dict):
        return message
    known = {key: value if key in NAMED_BY_USERS else as_if_newer(value) for key, value in message.items()}
    return known | {"of_the_next_version": {"nested": [1, None, "text"]}}


class NewerWire:
    """Passes syncs on. `steps` are put before those of every reply, until they are answered."""

    def __init__(self, gateway_url: str) -> None:
        self._upstream = httpx.Client(base_url=gateway_url, timeout=FORWARD_TIMEOUT_S)
        self.steps: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.url = ""

    def pass_on(self, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        """Both halves of one sync, made newer."""
        message = json.loads(body)
        for result in message["results"]:
            self.results[result["action_id"]] = result
        return self._upstream.post(path, headers=headers, json=as_if_newer(message))

    def answered(self, reply: dict[str, Any]) -> dict[str, Any]:
        """What the agent is told."""
        reply["actions"] = [step for step in self.steps if step["id"] not in self.results] + reply["actions"]
        newer: dict[str, Any] = as_if_newer(reply)
        return newer

    def close(self) -> None:
        """Drop connections."""
        self._upstream.close()


@contextmanager
def newer_wire(gateway_url: str) -> Iterator[NewerWire]:
    """Serves while the block runs."""
    wire = NewerWire(gateway_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = wire.pass_on(self.path, {"Authorization": self.headers["Authorization"]}, body)
            told = answer.content
            if answer.status_code == 200:
                told = json.dumps(wire.answered(answer.json())).encode()
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    wire.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield wire
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        wire.close()
