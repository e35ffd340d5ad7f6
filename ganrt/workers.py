"""Threads that take items from one list, until it is empty or they are told to stop, and their results in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from ganrt.errors import Cancelled, GanrtError
from ganrt.providers import cpu_count

T = TypeVar("T")
MAX_WORKERS = 1024
MAX_PROCESSES = 256
_TICK = 0.1  # seconds


class Stopped(Exception):
    """Raised inside a worker to leave an item unfinished."""


def arrange(workers: int | None, threads: int | None, batches: int, among: int = 1) -> tuple[int, int]:
    """How many workers make some batches, and how many threads each has in a call of the network on a CPU.

    Unless given: a worker a processor with one thread, the fastest arrangement where there are batches for all
    (docs/performance.md); where there are fewer, the other processors work within the calls. ``among`` so many
    processes the processors are shared out.
    """
    if workers is not None:
        return workers, threads or 1
    processors = max(1, cpu_count() // among)
    workers = max(1, min(processors // (threads or 1), batches))
    return workers, threads or max(1, processors // workers)


def in_threads(
    work: Callable[[T], None],
    items: Iterable[T],
    workers: int,
    stop: threading.Event,
    cancel: threading.Event | None = None,
    tick: Callable[[], None] = lambda: None,
    admit: Callable[[int], bool] = lambda number: True,
) -> None:
    """Calls ``work`` on every item from ``workers`` threads, and ``tick`` from this one a few times a second.

    ``admit`` is asked before each thread is started, with its number from 0; when it says no, there are enough.

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

    threads: list[threading.Thread] = []
    try:
        for number in range(workers):
            if not admit(number):
                break
            thread = threading.Thread(target=worker, name=f"ganrt-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise GanrtError(
                    f"worker {number + 1} of {workers} cannot be started: {error}",
                    "A limit on memory or processes is reached (ulimit -v, -u): raise it, or use fewer --workers.",
                ) from error
            threads.append(thread)
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK)
                tick()
                if cancel is not None and cancel.is_set():
                    stop.set()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    if cancel is not None and cancel.is_set():
        raise Cancelled("stopped before the end")


class InOrder(Generic[T]):
    """Passes on the items first … end-1, which several threads give in any order, one after the other.

    There is no thread for it: whoever gives the item that is next passes it on, and those after it that are
    there already. Who is too far ahead waits, so that no more than ``limit`` items do, or until ``stop`` is set.
    """

    def __init__(self, pass_on: Callable[[T], None], first: int, end: int, limit: int, stop: threading.Event) -> None:
        self._pass_on, self._limit, self._stop = pass_on, limit, stop
        self._next, self._end = first, end
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
