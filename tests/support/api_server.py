"""The real API on loopback, and what its tests need around it."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import pytest
import uvicorn
from pydantic import SecretStr

from api.access_token import Keyring
from api.app import create_app
from api.deps import make_deps
from api.main import CHANNELS
from api.settings import ApiSettings
from state import tokens
from state.database import Database, Doorbell
from tests.support.node_hand import NodeHand
from tests.support.patience import PATIENCE_S
from tests.support.postgres import TestServer

_numbers = count(1)
SCOPES = ("revpro", "admin", "read")


@dataclass
class ApiServer:
    """The application in uvicorn, in a thread of this process, on a free port, a token for each scope."""

    database_url: str
    settings: ApiSettings
    tokens: dict[str, str]

    @classmethod
    def on(cls, database_url: str, directory: Path, **settings: object) -> Self:
        """A server over a migrated database, with a keyring of its own in `directory`."""
        keyring = directory / "keyring.json"
        Keyring.new().save(keyring)
        values = {"database_url": SecretStr(database_url), "keyring": keyring, **settings}
        with_tokens = Database(database_url, "api", pool_size=1)
        made = {scope: tokens.create_token(with_tokens, f"test-{scope}", scope)[1] for scope in SCOPES}
        with_tokens.close()
        return cls(database_url, ApiSettings.model_validate(values), made)

    def __enter__(self) -> Self:
        self.db = Database(self.database_url, "api", pool_size=self.settings.database_connections_max)
        deps = make_deps(self.db, self.settings)
        app = create_app(deps, lambda: Doorbell(self.database_url, CHANNELS))
        config = uvicorn.Config(app, port=0, log_config=None, lifespan="on", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="api-under-test")
        self._started = threading.Event()
        self._server.startup = self._announced(self._server.startup)  # type: ignore[method-assign]
        self._thread.start()
        assert self._started.wait(PATIENCE_S), "the API did not start"
        return self

    def _announced(self, startup):  # type: ignore[no-untyped-def]
        async def announced(sockets=None):  # type: ignore[no-untyped-def]
            await startup(sockets)
            self._started.set()

        return announced

    @property
    def url(self) -> str:
        """Where it listens."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def client(self, scope: str | None = "admin", timeout_s: float = 60) -> httpx.Client:
        """A client with a token of this scope, or without one."""
        headers = {"Authorization": f"Bearer {self.tokens[scope]}"} if scope else {}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=timeout_s)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.db.close()


@pytest.fixture(scope="module")
def api(postgres_server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API over a database that the tests of a module share: each test has users of its own."""
    name = postgres_server.create()
    with ApiServer.on(postgres_server.url_of(name), tmp_path_factory.mktemp("api")) as server:
        yield server
    postgres_server.drop(name)


@pytest.fixture
def node(api: ApiServer) -> Iterator[NodeHand]:
    """A node of the API's database, spoken for by hand."""
    db = Database(api.database_url, "test", pool_size=2)
    yield NodeHand.join(db, f"node-{next(_numbers)}")
    db.close()
