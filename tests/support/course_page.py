"""A platform's page, on a site of its own, whose button opens a pod by posting a link."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COURSE_HOST = "course.test"
# As docs/api.md has it.
PAGE = """<!doctype html><title>Course</title><button>Open the lab</button>
<script>
document.querySelector('button').onclick = async () => {
    const { action, fields } = await (await fetch('/open', { method: 'POST' })).json();
    const form = document.createElement('form');
    Object.assign(form, { method: 'post', action, autocomplete: 'off' });
    for (const [name, value] of Object.entries(fields)) {
        form.append(Object.assign(document.createElement('input'), { type: 'hidden', name, value }));
    }
    document.body.append(form);
    form.submit();
    form.remove();
};
</script>"""


@contextlib.contextmanager
def course_page(address: str, form: Mapping[str, Any]) -> Iterator[str]:
    """The page's URL, by the name `COURSE_HOST`; its server listens on a free port of this address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("text/html", PAGE)

        def do_POST(self) -> None:
            self._answer("application/json", json.dumps(form))

        def _answer(self, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            for name, value in (("Content-Type", kind), ("Cache-Control", "no-store")):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            """Nothing."""

    with ThreadingHTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{COURSE_HOST}:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
