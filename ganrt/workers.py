"""Threads that take items from one list, until it is empty or they are told to stop, and their results in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

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


class InOrder(Generic[T]):
    """Passes on what several threads give, in any order, one after the other in its own.

    There is no thread for it: whoever gives the item that is next passes it on, and those after it that are
    there already. Who is too far ahead waits, so that no more than ``limit`` items do, or until ``stop`` is set.
    """

    def __init__(self, pass_on: Callable[[T], None], first: int, count: int, limit: int, stop: threading.Event) -> None:
        self._pass_on, self._limit, self._stop = pass_on, limit, stop
        self._next, self._end = first, first + count
        self._waiting: dict[int, T] = {}
        self._busy = False
        self._changed = threading.Condition()

    def give(self, number: int, item: T) -> bool:
        """Takes item ``number``. True when this call has passed on the last of all."""
        with self._changed:
            self._waiting[number] = item
            while self._busy or self._next not in self._waiting:
                if len(self._waiting) <= self._limit or self._stop.is_set():
                    return False
                self._changed.wait(_TICK)
            self._busy = True
        while True:
            with self._changed:
                if self._next not in self._waiting:
                    self._busy = False
                    self._changed.notify_all()
                    return False
                item = self._waiting.pop(self._next)
                self._changed.notify_all()
            self._pass_on(item)
            self._next += 1
            if self._next == self._end:
                return True
