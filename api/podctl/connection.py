"""Where the API is and how to be let in: environment variables, or the local installation's own file."""

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from api.podctl.failing import Failed

CLIENT_FILE = "client.json"
# An editable install imports this module from the checkout, and the local installation lives beside it.
CHECKOUT = Path(__file__).resolve().parents[2]
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the API."""

    url: str
    token: str = field(repr=False)
    ca: Path | None = None

    @property
    def is_local(self) -> bool:
        """On this machine: proxies that the environment names are not for it."""
        return urlsplit(self.url).hostname in LOOPBACK

    def verify(self) -> ssl.SSLContext | bool:
        """What the server's certificate is checked against. Raises `Failed` when the file is not usable."""
        if self.ca is None:
            return True
        try:
            return ssl.create_default_context(cafile=str(self.ca))
        except (OSError, ssl.SSLError) as error:
            raise Failed(
                "ca_unusable",
                f"The certificate authority in {self.ca} cannot be read: {error}.",
                "Set CODEPODS_CA.",
            ) from error


def find(environ: Mapping[str, str] = os.environ, checkout: Path = CHECKOUT) -> Connection:
    """The API named by `CODEPODS_URL`, `CODEPODS_TOKEN` and `CODEPODS_CA`, otherwise the local installation.

    Raises `Failed` when there is neither.
    """
    local = {} if "CODEPODS_URL" in environ else _local(environ, checkout)
    url = environ.get("CODEPODS_URL") or local.get("url", "")
    token = environ.get("CODEPODS_TOKEN") or local.get("token", "")
    ca = environ.get("CODEPODS_CA") or local.get("ca")
    if urlsplit(url).scheme not in ("http", "https"):
        raise Failed("url_refused", f"CODEPODS_URL is {url!r}.", "Set it to https://HOST[:PORT].")
    if not token:
        raise Failed("token_missing", f"There is no token for {url}.", "Set CODEPODS_TOKEN.")
    return Connection(url.rstrip("/"), token, Path(ca) if ca else None)


def _local(environ: Mapping[str, str], checkout: Path) -> dict[str, str]:
    home = Path(environ.get("CODEPODS_HOME") or checkout / ".codepods")
    path = home / CLIENT_FILE
    try:
        read = json.loads(path.read_text())
        return {key: str(read[key]) for key in ("url", "ca", "token") if read.get(key)}
    except FileNotFoundError as error:
        raise Failed(
            "not_up",
            f"codepods has not been started here ({path} is not there).",
            "Start it with `make up`, or set CODEPODS_URL and CODEPODS_TOKEN to use another one.",
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise Failed(
            "client_file_unusable", f"{path} cannot be used: {error}.", "Make it anew with `make up`."
        ) from error
