"""Too little memory is an error that says so, and memory, threads and descriptors are given back."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganrt
from ganrt.errors import Cancelled
from tests import datasets, pictures
from tests.datasets import LAYOUTS, command, differences, make, model_file, run, slow_model_file
from tests.faults.conftest import Tally
from tests.faults.hungry import hungry_model_file, hungry_translator_file, with_little
from tests.pictures import translate, translator_file, two_classes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux, and /proc")

MIB = 1 << 20

# Too little ---------------------------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_an_error_and_no_smaller_batch(tmp_path: Path, tally: Tally) -> None:
    model, out = hungry_model_file(tmp_path, 4096), tmp_path / "out"  # 3 MiB a sample, and twice that at a time
    refused = run(with_little(120, command(model, out, 96)))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert refused.stderr.endswith(
        "ganrt: a batch of 32 does not fit into memory\n"
        "  Use a smaller batch (--batch), or fewer --workers.\n"
        "  0 of 96 images are finished and kept; the same command goes on from there.\n"
    ), refused.stderr
    assert not list(out.rglob("*.png")) and not (out / "README.md").exists()
    tally.survived("batch that does not fit, generate")
    fits = run(with_little(120, command(model, tmp_path / "smaller", 96, "--workers", "1", shard_size=32, batch=4)))
    assert fits.returncode == 0, fits.stderr


@pytest.mark.faults
def test_images_that_do_not_fit(tmp_path: Path, tally: Tally) -> None:
    two_classes(tmp_path / "in", 12, width=64, height=64)
    model = hungry_translator_file(tmp_path, 4096)  # 192 MiB an image
    refused = run(with_little(300, pictures.command(model, tmp_path / "in", tmp_path / "out")))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert (
        ": a batch of 4 does not fit into memory\n  Use a smaller batch (--batch), or smaller images." in refused.stderr
    )
    tally.survived("batch that does not fit, translate")


@pytest.mark.faults
@pytest.mark.parametrize("batch", [1, 32])
def test_an_absurd_tensor_in_a_small_file(batch: int, tmp_path: Path, tally: Tally) -> None:
    model, out = hungry_model_file(tmp_path, 1 << 20), tmp_path / "out"
    assert model.stat().st_size < 5 * MIB  # and 768 MiB a sample
    refused = run(with_little(500, command(model, out, 64, shard_size=32, batch=batch)))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert f"ganrt: a batch of {batch} does not fit into memory" in refused.stderr
    hint = "a smaller batch (--batch), or fewer --workers." if batch > 1 else "fewer --workers, or a machine with more"
    assert hint in refused.stderr
    tally.survived("absurd tensor in a small file")


@pytest.mark.faults
def test_however_little_memory_there_is_it_is_said(tmp_path: Path, tally: Tally) -> None:
    model, ends = hungry_model_file(tmp_path, 4096), list[int]()
    for more in (20, 25, 30, 35, 45, 60, 100, 200, 300, 400, 600, 900):
        done = run(with_little(more, command(model, tmp_path / str(more), 96)))
        assert "Traceback" not in done.stderr, (more, done.stderr)
        assert done.returncode in (0, 1), (more, done.returncode)
        assert done.returncode == 0 or any(
            words in done.stderr for words in ("fit into memory", "not enough memory", "cannot be started", "allocate")
        ), (more, done.stderr)
        ends.append(done.returncode)
        tally.survived("little memory, any amount")
    assert ends[0] == 1 and ends[-1] == 0


# Leaks --------------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Memory of this process, in bytes."""
    gc.collect()
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


def growth(do: Callable[[int], object], times: int = 2000, warm: int = 400) -> int:
    """By how many bytes this process grows in ``times`` calls after the first few."""
    for number in range(warm):
        do(number)
    before = resident()
    for number in range(times):
        do(number)
    return resident() - before


def test_two_thousand_batches_take_the_memory_of_a_few(tmp_path: Path, tally: Tally) -> None:
    # A batch is 4 KiB: if half of them stayed, that would be 4 MiB.
    generator = ganrt.load(model_file(tmp_path, channels=1), device="cpu", threads=1)
    z, y = np.zeros((64, 8), np.float32), np.arange(64) % 3
    assert growth(lambda number: generator(z + number / 1000, y)) < 4 * MIB
    tally.survived("batches of a generator, memory", 2000)
    translator = ganrt.load_translator(translator_file(tmp_path, "to", dynamic=True), device="cpu", threads=1)
    images = pictures.picture(0, 24, 24)[None].repeat(8, axis=0)
    sizes = [images, images[:, :16], images[:3], images[:, :, :12]]  # several shapes in turn
    assert growth(lambda number: translator(sizes[number % 4])) < 4 * MIB
    tally.survived("batches of a translator, memory", 2000)


@pytest.mark.faults
def test_two_thousand_batches_of_translate_take_the_memory_of_a_few(tmp_path: Path, tally: Tally) -> None:
    two_classes(tmp_path / "in", 50, width=64, height=64)
    for number in range(50, 8000):
        os.link(tmp_path / "in/dog/49 photo.png", tmp_path / f"in/dog/{number}.png")
    model, seen = translator_file(tmp_path, width=64, height=64, scale=2), list[tuple[int, int]]()

    def progress(told: ganrt.Progress) -> None:
        if not seen or told.made >= seen[-1][0] + 800:
            seen.append((told.made, resident()))

    assert translate(model, tmp_path / "in", tmp_path / "out", layout="webdataset", progress=progress).images == 8000
    early = max(size for made, size in seen if made <= 2400)
    assert max(size for _, size in seen) < early + 6 * MIB, seen
    tally.survived("batches of translate, memory", 2000)


# Threads ------------------------------------------------------------------------------------------------------------


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("seconds", [1.5, pytest.param(60, marks=pytest.mark.faults)])
def test_eight_threads_share_a_generator(seconds: float, tmp_path: Path, tally: Tally) -> None:
    generator = ganrt.load(model_file(tmp_path), device="cpu", threads=1)
    expected = generator.sample(600)
    small: dict[str, Any] = {"shard_size": 64, "batch": 32, "workers": 2}
    whole = {x: tmp_path / "whole" / x for x in LAYOUTS}
    for layout in LAYOUTS:
        ganrt.generate(generator, n=200, out=whole[layout], layout=layout, **small)
    ends, made, wrong = time.monotonic() + seconds, [0] * 8, list[str]()
    before, open_before = threading.active_count(), descriptors()

    def work(number: int) -> None:
        dice = random.Random(number)
        try:
            while time.monotonic() < ends:
                start, n = dice.randrange(400), dice.randrange(1, 200)
                if not np.array_equal(generator.sample(n, start=start), expected[start : start + n]):
                    wrong.append(f"thread {number}: samples {start} to {start + n - 1}")
                for batch in generator.stream(dice.randrange(1, 200), start=start):
                    if not np.array_equal(batch.images, expected[batch.indices]):
                        wrong.append(f"thread {number}: the stream from {start}")
                layout, out = dice.choice(LAYOUTS), tmp_path / f"{number}-{made[number]}"
                ganrt.generate(generator, n=200, out=out, layout=layout, **small)
                if differences(out, whole[layout]) or ganrt.verify(out):
                    wrong.append(f"thread {number}: {out} in {layout}")
                made[number] += 1
        except BaseException as error:
            wrong.append(f"thread {number}: {error!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and min(made) > 0
    assert threading.active_count() == before and descriptors() == open_before
    tally.survived("eight threads, datasets at the same time", sum(made))


@pytest.mark.parametrize(
    ("layout", "times"), [("webdataset", 4), *(pytest.param(x, 34, marks=pytest.mark.faults) for x in LAYOUTS)]
)
def test_cancelled_again_and_again(layout: str, times: int, tmp_path: Path, tally: Tally) -> None:
    model, n = slow_model_file(tmp_path), 2000
    options: dict[str, Any] = {"layout": layout, "shard_size": 16, "batch": 16}
    make(model, tmp_path / "whole", n, **options)
    before, open_before = threading.active_count(), descriptors()
    dice, cancelled, number = random.Random(layout), 0, 0
    while cancelled < times:
        number += 1
        out = tmp_path / str(number)
        for _ in range(8):
            cancel = threading.Event()
            timer = threading.Timer(dice.uniform(0.001, 0.15), cancel.set)
            timer.start()
            try:
                make(model, out, n, cancel=cancel, workers=1, **options)
                break  # it was done first
            except Cancelled:
                cancelled += 1
            finally:
                timer.cancel()
                timer.join()
            assert not (out / "README.md").exists()
            assert threading.active_count() == before and descriptors() == open_before
            tally.survived(f"cancelled in the middle, {layout}")
        assert make(model, out, n, **options).complete
        assert differences(out, tmp_path / "whole") == []
        assert not [path.name for path in datasets.files(out) if path.name.endswith(".part")]
    assert ganrt.verify(out) == []
