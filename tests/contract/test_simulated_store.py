"""The simulation's store keeps the contract of the real ones: the same calls, the same answers."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_agent.directory_store import DirectoryStore
from node_agent.store import Store, StoreConflict, StoreError
from tests.sim.store import SimStore
from tests.sim.undisturbed import Undisturbed

NUMBERS = count()
KEYS = ("archives/a/one", "archives/a/two", "archives/b/one", "../outside")
DATA = (b"", b"x", b"other", b"y" * 5000)


def _blob(store: Store, key: str, data: bytes) -> object:
    with store.open_writer(key) as writer:
        writer.write(data)
        return writer.commit()


def _abandoned(store: Store, key: str, data: bytes) -> object:
    # A store may refuse other bytes under a key that is taken as soon as it sees them.
    with suppress(StoreConflict), store.open_writer(key) as writer:
        writer.write(data)
    return store.head(key)


def _read(store: Store, key: str, _data: bytes) -> object:
    with store.open_reader(key) as chunks:
        return b"".join(chunks)


CALLS: dict[str, Callable[[Store, str, bytes], object]] = {
    "blob": _blob,
    "abandoned": _abandoned,
    "manifest": lambda store, key, data: store.put_manifest(key, data),
    "overwrite": lambda store, key, data: store.put_manifest(key, data, only_if_absent=False),
    "get": lambda store, key, _data: store.get(key, 100),
    "read": _read,
    "head": lambda store, key, _data: store.head(key),
    "list": lambda store, _key, data: store.list("archives/a/", 1 + len(data) % 2),
    "delete": lambda store, key, _data: store.delete(key),
}
calls = st.tuples(st.sampled_from(sorted(CALLS)), st.sampled_from(KEYS), st.sampled_from(DATA))


def _outcome(store: Store, call: tuple[str, str, bytes]) -> object:
    name, key, data = call
    try:
        return CALLS[name](store, key, data)
    except StoreError as error:
        return type(error)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(calls, max_size=25))
def test_the_simulated_store_and_a_directory_do_the_same(
    tmp_path: Path, sequence: list[tuple[str, str, bytes]]
) -> None:
    """Blobs, manifests, reads, lists and removals, in any order; refusals included."""
    simulated = SimStore(Undisturbed(0), lambda _kind, _key: None)
    real = DirectoryStore(tmp_path / str(next(NUMBERS)))

    for call in sequence:
        assert _outcome(simulated, call) == _outcome(real, call), call
