"""Workers: how many there are, and that what they do together comes out in order, once, and never hangs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ganrt
from ganrt.errors import StorageFull, UsageError
from ganrt.generator import Generator
from ganrt.layouts import npy
from ganrt.workers import InOrder, Stopped, arrange, in_threads
from tests.datasets import contents, differences, make, model_file

SOON = 20  # seconds after which something hangs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes ganrt believe in so many processors."""

    def are(count: int) -> None:
        for module in ("workers", "network"):
            monkeypatch.setattr(f"ganrt.{module}.cpu_count", lambda: count)

    return are


def ends(work: Callable[[], None]) -> None:
    """Runs something in a thread of its own, and fails when it hangs or raises."""
    errors: list[BaseException] = []

    def caught() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=caught, daemon=True)
    thread.start()
    thread.join(SOON)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


def until(condition: Callable[[], bool]) -> None:
    """Waits for something that another thread does."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.001)


# In order.


@given(st.integers(0, 5).flatmap(lambda first: st.tuples(st.just(first), st.permutations(range(first, first + 8)))))
def test_items_given_in_any_order_come_out_in_theirs_and_the_last_call_says_so(case: tuple[int, list[int]]) -> None:
    first, order = case
    passed: list[int] = []
    items = InOrder(passed.append, first, first + 8, 8, threading.Event())
    said = [items.give(number, number * 10) for number in order]
    assert passed == [number * 10 for number in range(first, first + 8)]
    assert said == [False] * 7 + [True]


@pytest.mark.parametrize(("threads", "limit"), [(2, 1), (8, 1), (8, 8), (17, 17), (32, 3)])
def test_many_threads_pass_on_everything_once_in_order_one_at_a_time(threads: int, limit: int) -> None:
    first, end = 7, 307
    delays = random.Random(f"{threads} {limit}")
    waits = {number: delays.choice((0, 0, 0.0005, 0.003)) for number in range(first, end)}
    guard, passing = threading.Lock(), threading.Lock()
    passed: list[int] = []
    most = given = 0
    said: list[bool] = []

    def pass_on(number: int) -> None:
        assert passing.acquire(blocking=False), "two at a time"
        time.sleep(waits[number] / 4)
        with guard:
            passed.append(number)
        passing.release()

    items, stop = InOrder(pass_on, first, end, limit, threading.Event()), threading.Event()

    def work(number: int) -> None:
        nonlocal most, given
        time.sleep(waits[number])
        with guard:
            given += 1
            most = max(most, given - len(passed))
        is_last = items.give(number, number)
        with guard:
            said.append(is_last)

    ends(lambda: in_threads(work, iter(range(first, end)), threads, stop))
    assert passed == list(range(first, end))
    assert (said.count(True), len(said)) == (1, end - first)
    assert most <= limit + threads + 1  # the one that is being passed on


def test_who_is_too_far_ahead_waits_for_the_one_that_is_next() -> None:
    threads, limit, end = 8, 3, 100
    release, stop = threading.Event(), threading.Event()
    passed: list[int] = []
    given: list[int] = []
    items = InOrder(passed.append, 0, end, limit, stop)

    def work(number: int) -> None:
        if number == 0:
            assert release.wait(SOON)
        given.append(number)
        items.give(number, number)

    def run() -> None:
        in_threads(work, iter(range(end)), threads, stop)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: len(given) == limit + threads - 1)  # the limit, and one in the hands of each thread but the first
    time.sleep(0.3)
    assert (len(given), passed) == (limit + threads - 1, [])
    release.set()
    thread.join(SOON)
    assert passed == list(range(end))


def test_up_to_the_limit_nobody_waits() -> None:
    passed: list[int] = []
    items = InOrder(passed.append, 0, 5, 4, threading.Event())
    said: list[bool] = []
    ends(lambda: said.extend(items.give(number, number) for number in (4, 3, 2, 1)))
    assert (passed, said) == ([], [False] * 4)
    assert items.give(0, 0)
    assert passed == [0, 1, 2, 3, 4]


def test_stop_releases_who_waits() -> None:
    stop, said = threading.Event(), list[bool]()
    items: InOrder[int] = InOrder(lambda _: pytest.fail("the first item never came"), 0, 100, 2, stop)
    threads = [
        threading.Thread(target=lambda n=n: said.append(items.give(n, n)), daemon=True) for n in range(1, 13)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    until(lambda: len(said) == 2)
    time.sleep(0.3)
    assert said == [False, False]  # the others wait
    stop.set()
    until(lambda: len(said) == 12)
    assert said == [False] * 12


@pytest.mark.parametrize("bad", [0, 5, 59])
def test_an_item_that_cannot_be_passed_on_ends_the_run_with_its_error(bad: int) -> None:
    passed: list[int] = []
    stop = threading.Event()
    before = threading.active_count()

    def pass_on(number: int) -> None:
        if number == bad:
            time.sleep(0.05)  # the others are ahead, and wait
            raise ZeroDivisionError(number)
        passed.append(number)

    items = InOrder(pass_on, 0, 60, 2, stop)
    said: list[bool] = []

    def work(number: int) -> None:
        if stop.is_set():
            raise Stopped
        said.append(items.give(number, number))

    with pytest.raises(ZeroDivisionError, match=str(bad)):
        ends(lambda: in_threads(work, iter(range(60)), 8, stop))
    assert passed == list(range(bad))
    assert not any(said)
    until(lambda: threading.active_count() == before)


def test_a_list_of_items_that_fails_ends_the_run_with_its_error() -> None:
    # Shards are opened while tasks are taken: that may fail too.
    def items() -> Iterator[int]:
        yield from range(5)
        raise StorageFull("no space", "Make room.")

    done: list[int] = []
    with pytest.raises(StorageFull):
        ends(lambda: in_threads(done.append, items(), 4, threading.Event()))
    assert sorted(done) == list(range(5))


def test_no_more_threads_are_started_than_are_admitted() -> None:
    asked: list[int] = []
    names: set[str] = set()
    together = threading.Barrier(3)

    def admit(number: int) -> bool:
        asked.append(number)
        return number < 3

    def work(_: int) -> None:
        names.add(threading.current_thread().name)
        together.wait(SOON)

    ends(lambda: in_threads(work, iter(range(9)), 8, threading.Event(), admit=admit))
    assert asked == [0, 1, 2, 3]
    assert names == {"ganrt-0", "ganrt-1", "ganrt-2"}


# How many workers, and threads within a call.


@pytest.mark.parametrize(
    ("there", "workers", "threads", "batches", "arranged"),
    [
        (16, None, None, 1000, (16, 1)),  # a worker a processor
        (16, None, None, 16, (16, 1)),
        (16, None, None, 15, (15, 1)),
        (16, None, None, 8, (8, 2)),  # the other processors work within the calls
        (16, None, None, 3, (3, 5)),
        (16, None, None, 1, (1, 16)),
        (16, None, None, 0, (1, 16)),
        (1, None, None, 1000, (1, 1)),
        (16, 3, None, 1000, (3, 1)),  # what the user says holds, also where it is not the fastest
        (16, 3, None, 1, (3, 1)),
        (2, 40, None, 1000, (40, 1)),
        (16, 3, 5, 1, (3, 5)),
        (16, 1, 1, 1000, (1, 1)),
        (16, None, 4, 1000, (4, 4)),
        (16, None, 5, 1000, (3, 5)),
        (16, None, 4, 2, (2, 4)),
        (16, None, 1, 2, (2, 1)),
        (16, None, 64, 1000, (1, 64)),
    ],
)
def test_workers_and_threads_are_those_given_or_share_the_processors(
    there: int,
    workers: int | None,
    threads: int | None,
    batches: int,
    arranged: tuple[int, int],
    processors: Callable[[int], None],
) -> None:
    processors(there)
    assert arrange(workers, threads, batches) == arranged


def test_a_run_shares_the_processors_between_its_batches(
    model: Path, tmp_path: Path, processors: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    processors(6)
    monkeypatch.setattr("ganrt.engine.FEW_WORKERS", 6)  # all of them, however light the network is

    def report(n: int, **options: Any) -> tuple[int, int | None]:
        made = ganrt.generate(
            model, n=n, out=tmp_path / "out", device="cpu", layout="webdataset", batch=32, shard_size=64, **options
        )
        return made.workers, made.threads

    assert report(32) == (1, 6)
    assert report(32) == (0, None)  # nothing to do
    assert report(64) == (2, 3)  # the shard was short, and is made again
    assert report(64 + 65) == (3, 2)
    assert report(1000) == (6, 1)
    assert report(1032, threads=3) == (2, 3)
    assert report(1096, workers=4) == (4, 1)
    make(model, tmp_path / "once", 1096, layout="webdataset", shard_size=64)
    assert differences(tmp_path / "out", tmp_path / "once") == []


def slow_down(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Makes a method take a while."""
    real = getattr(owner, name)

    def slow(*arguments: Any) -> Any:
        time.sleep(0.02)
        return real(*arguments)

    monkeypatch.setattr(owner, name, slow)


@pytest.mark.parametrize("given", [None, 16])
def test_a_light_network_gets_few_workers_unless_told_otherwise(
    given: int | None, model: Path, tmp_path: Path, processors: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    processors(16)
    monkeypatch.setattr("ganrt.engine.PROBE_SECONDS", SOON)  # however slow this machine is
    slow_down(monkeypatch, npy._Rows, "append")
    report = make(model, tmp_path / "out", 32 * 40, layout="npy", workers=given)
    assert report.images == 32 * 40 and report.threads == 1
    if given:
        assert report.workers == given
    else:
        assert 2 <= report.workers <= 4
    make(model, tmp_path / "once", 32 * 40, layout="npy", workers=1)
    assert differences(tmp_path / "out", tmp_path / "once") == []


@pytest.mark.parametrize("seconds", [60, 0.001])
def test_a_slow_network_gets_a_worker_a_processor(
    seconds: float, model: Path, tmp_path: Path, processors: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a minute to wait the measurement says so; with a millisecond it is not waited for.
    processors(16)
    monkeypatch.setattr("ganrt.engine.PROBE_SECONDS", seconds)
    slow_down(monkeypatch, Generator, "make")
    report = make(model, tmp_path / "out", 32 * 40, layout="npy", workers=None)
    assert (report.workers, report.threads) == (16, 1)


# The threads of a generator that is given.


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads each session that is made has in a call."""
    from ganrt.providers import create_session

    seen: list[int] = []

    def watched(model: bytes, device: str, threads: int, *rest: Any) -> Any:
        seen.append(threads)
        return create_session(model, device, threads, *rest)

    monkeypatch.setattr("ganrt.network.create_session", watched)
    return seen


def test_a_generator_whose_threads_nobody_chose_is_used_with_those_of_the_run(
    model: Path, tmp_path: Path, processors: Callable[[int], None], sessions: list[int]
) -> None:
    processors(4)
    generator = ganrt.load(model, device="cpu", batch=32)
    assert (generator.threads, sessions) == (4, [4])
    before = generator.sample(70)
    report = ganrt.generate(generator, n=300, out=tmp_path / "given", workers=3, layout="npy", shard_size=128)
    assert (report.workers, report.threads, sessions) == (3, 1, [4, 1])
    assert generator.threads == 4 and (generator.sample(70) == before).all()  # its own are left as they are
    make(model, tmp_path / "named", 300, layout="npy")
    assert differences(tmp_path / "given", tmp_path / "named") == []
    # One batch is made by one worker, which has them all: the generator is right as it is.
    report = ganrt.generate(generator, n=20, out=tmp_path / "few", shard_size=128)
    assert (report.workers, report.threads, sessions[3:]) == (1, 4, [])


def test_threads_that_were_chosen_for_a_generator_stay(
    model: Path, tmp_path: Path, processors: Callable[[int], None], sessions: list[int]
) -> None:
    processors(4)
    generator = ganrt.load(model, device="cpu", batch=32, threads=3)
    report = ganrt.generate(generator, n=300, out=tmp_path / "given", workers=2, layout="npy", shard_size=128)
    assert (report.threads, sessions) == (3, [3])
    make(model, tmp_path / "named", 300, layout="npy")
    assert differences(tmp_path / "given", tmp_path / "named") == []


@pytest.mark.parametrize("how", ["removed", "replaced", "broken", "a folder now"])
def test_a_generator_outlives_its_file(
    how: str, model: Path, tmp_path: Path, processors: Callable[[int], None], sessions: list[int]
) -> None:
    processors(4)
    own = model_file(tmp_path)
    assert own.read_bytes() == model.read_bytes()
    generator = ganrt.load(own, device="cpu", batch=32)
    own.unlink()
    if how == "replaced":
        model_file(tmp_path, seed=1)
    elif how == "broken":
        own.write_bytes(b"no model")
    elif how == "a folder now":
        own.mkdir()
    report = ganrt.generate(generator, n=300, out=tmp_path / "given", workers=2, layout="npy", shard_size=128)
    assert (report.threads, sessions) == (4, [4])
    make(model, tmp_path / "named", 300, layout="npy")
    assert differences(tmp_path / "given", tmp_path / "named") == []


def test_threads_belong_to_the_generator_given(model: Path, tmp_path: Path) -> None:
    generator = ganrt.load(model, device="cpu")
    for call in (ganrt.generate, ganrt.forecast):
        with pytest.raises(
            UsageError,
            match="threads and provider options belong to the generator given\nName them where the generator",
        ):
            call(generator, n=1, out=tmp_path / "out", threads=2)
        for bad in (0, -1, 1025, 1.5, "2", True):
            with pytest.raises(UsageError, match=r"threads .*\nExpected a whole number of 1 to 1024"):
                call(model, n=1, out=tmp_path / "out", threads=bad)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_forecast_tells_workers_and_threads_as_a_run_would_have_them(
    model: Path, tmp_path: Path, processors: Callable[[int], None]
) -> None:
    processors(6)

    def told(n: int, given: Path | Generator = model, **options: Any) -> tuple[int, int | None]:
        forecast = ganrt.forecast(given, n=n, out=tmp_path / "out", batch=32, **options)
        assert forecast.to_dict()["threads"] == forecast.threads
        return forecast.workers, forecast.threads

    assert told(32, device="cpu") == (1, 6)
    assert told(65, device="cpu") == (3, 2)
    assert told(1000, device="cpu") == (6, 1)
    assert told(1000, device="cpu", threads=3) == (2, 3)
    assert told(1000, device="cpu", workers=9) == (9, 1)
    assert told(1000, device="cpu", workers=2, threads=2) == (2, 2)
    assert told(1000, ganrt.load(model, device="cpu")) == (6, 1)
    assert told(1000, ganrt.load(model, device="cpu", threads=2)) == (6, 2)
    assert not contents(tmp_path)
