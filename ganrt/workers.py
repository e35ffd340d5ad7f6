"""Threads that take items from one list until it is empty, one fails, or they are told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from ganrt.errors import Cancelled

T = TypeVar("T")
_TICK = 0.1  # seconds


class Stopped(Exception):
    """Raised inside a worker to leave an item unfinished."""


def in_threads(
    work: Callable[[T], None],
    items: Iterable[T],
    workers: int,
    stop: threading.Event,
    cancel: threading.Event | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Calls ``work`` on every item from ``workers`` threads, and ``tick`` from this one a few times a second.

    The first exception sets ``stop``, which ``work`` should heed by raising Stopped, and is raised here when
    all threads have ended. So does ``cancel``, with Cancelled. No thread outlives the call.
    """
    source, guard, errors = iter(items), threading.Lock(), []

    def worker() -> None:
        try:
            while not stop.is_set():
                with guard:
                    item = next(source, None)
                if item is None:
                    return
                work(item)
        except Stopped:
            pass
        except BaseException as error:
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=worker, name=f"ganrt-{number}", daemon=True) for number in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK)
                tick()
                if cancel is not None and cancel.is_set():
                    stop.set()
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if errors:
        raise errors[0]
    if cancel is not None and cancel.is_set():
        raise Cancelled("stopped before the end")
