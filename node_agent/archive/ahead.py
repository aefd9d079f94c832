"""Pipelines: an iterator that runs in a thread of its own, a few items ahead of who asks for them."""

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

ITEMS_AHEAD_MAX = 4


class _End:
    """What comes after the last item: why it was the last, if it was an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


@contextmanager
def ahead(items: Generator[T, None, None], items_ahead_max: int = ITEMS_AHEAD_MAX) -> Iterator[Iterator[T]]:
    """The same items and the same error at the end. Leaving the block ends the thread and closes `items`."""
    waiting: queue.Queue[T | _End] = queue.Queue(items_ahead_max)
    left = threading.Event()

    def run() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                waiting.put(item)
                if left.is_set():
                    break
            items.close()
        except BaseException as raised:  # noqa: BLE001 (it is raised where the items are taken)
            error = raised
        waiting.put(_End(error))

    thread = threading.Thread(target=run, name="ahead", daemon=True)
    thread.start()
    try:
        yield _taken(waiting)
    finally:
        left.set()
        while thread.is_alive():
            _drop_one(waiting)
        thread.join()


def _taken(waiting: "queue.Queue[T | _End]") -> Iterator[T]:
    while True:
        item = waiting.get()
        if not isinstance(item, _End):
            yield item
        elif item.error is not None:
            raise item.error
        else:
            return


def _drop_one(waiting: "queue.Queue[T | _End]") -> None:
    """Room for a thread that waits to hand something over."""
    try:
        waiting.get(timeout=0.01)
    except queue.Empty:
        return
