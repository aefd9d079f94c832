"""Does the IDE answer? An authenticated `GET /`, over a connection of its own.

`/healthz` is not readiness: it answers 200 while every page is an error. A kept connection would count as
use in the IDE's own activity clock, so each probe closes its connection.
"""

import http.client

PROBE_TIMEOUT_S = 2.0
POLL_EVERY_S = 0.02
COOKIE = "code-server-session"


def ide_answers(host: str, port: int, session_secret: str, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """True when the IDE serves pages to the holder of the secret. Never raises for what the pod does."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(
            "GET", "/", headers={"Cookie": f"{COOKIE}={session_secret}", "Connection": "close"}
        )
        answer = connection.getresponse()
        where = answer.getheader("Location") or ""
        return answer.status == 200 or (answer.status == 302 and "login" not in where)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
