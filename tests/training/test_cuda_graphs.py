"""Steps that are replayed. A GPU records them; here, what replays a step does its work again from the same tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ganrt_training import cuda_graphs
from ganrt_training.crew import Crew
from ganrt_training.cuda_graphs import GraphedStep
from ganrt_training.feeding import Feed
from ganrt_training.gans import find_recipe
from ganrt_training.players import make_players, set_rates, state_of
from ganrt_training.step import Players, adversarial_step
from tests.training.tiny import tiny_data, tiny_recipe

CPU = torch.device("cpu")


class Again:
    """Records by keeping the work. It counts, and can be told to fail."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.recorded, self.replayed = fails, 0, 0

    def warm(self, work: cuda_graphs.Work) -> cuda_graphs.Figures:
        return work()

    def record(self, work: cuda_graphs.Work) -> cuda_graphs.Work:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recorded += 1

        def again() -> cuda_graphs.Figures:
            self.replayed += 1
            return work()

        return again


StepOf = Callable[[Any, Players], Callable[[Any], Any]]


def steps(count: int, step_of: StepOf, *overrides: str) -> tuple[Players, list[Any]]:
    recipe = tiny_recipe(*overrides)
    data = tiny_data(80)
    torch.manual_seed(3)
    players = make_players(recipe, 1, 3, CPU)
    feed = Feed(recipe, data, 3, 0, Crew(0, 1, CPU))
    do, seen = step_of(recipe, players), []
    for number in range(count):
        set_rates(recipe, players, number / count)
        figures = do(feed.turn(number, 0.1 * (number // 5)))
        seen.append({name: float(value) for name, value in figures.items()})
    return players, seen


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("d_steps=2",),
        ("r1=1", "penalty_interval=4", "loss=non_saturating"),
        ("r1=1", "r2=1", "loss=relativistic", "accumulate=2"),
        ("gradient_penalty=10", "loss=wasserstein", "lr_decay=0.5"),
    ],
)
def test_replayed_steps_do_what_launched_ones_do(overrides: tuple[str, ...]) -> None:
    recorder = Again()
    torch.set_num_threads(1)
    launched, told = steps(24, lambda recipe, players: lambda turn: adversarial_step(recipe, players, turn), *overrides)
    replayed, seen = steps(24, lambda recipe, players: GraphedStep(recipe, players, recorder), *overrides)
    assert recorder.replayed > 8
    for one, other in zip(told, seen, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    for name in ("generator", "discriminator", "averaged"):
        for mine, theirs in zip(
            getattr(launched, name).state_dict().values(), getattr(replayed, name).state_dict().values(), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_each_kind_of_step_is_recorded_once_after_it_was_done_a_few_times() -> None:
    recorder = Again()
    steps(24, lambda recipe, players: GraphedStep(recipe, players, recorder), "d_steps=2")
    # In steps 0 to 4, without augmentation, no kind comes a fourth time; then 10 are with the generator and 9 without.
    assert (recorder.recorded, recorder.replayed) == (2, 7 + 6)


def test_a_gpu_that_cannot_record_launches_every_step(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ganrt.training"):
        players, seen = steps(12, lambda recipe, players: GraphedStep(recipe, players, Again(fails=True)))
    assert [record.message for record in caplog.records] == [
        "steps cannot be replayed on this GPU, and are launched one by one: operation not permitted when stream is "
        "capturing"
    ]
    assert len(seen) == 12
    assert all(parameter.requires_grad for parameter in players.discriminator.parameters())


def test_a_recording_that_lacks_memory_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Short(Again):
        def record(self, work: cuda_graphs.Work) -> cuda_graphs.Work:
            try:
                raise torch.OutOfMemoryError("tried to allocate 2 GiB")
            finally:  # as when the recording that it broke off is ended
                raise RuntimeError("operation failed due to a previous error during capture")

    with caplog.at_level(logging.WARNING, "ganrt.training"):
        _, seen = steps(12, lambda recipe, players: GraphedStep(recipe, players, Short()))
    assert [record.message for record in caplog.records] == [
        "steps cannot be replayed for want of memory, and are launched one by one: operation failed due to a previous "
        "error during capture"
    ]
    assert len(seen) == 12


def test_a_recording_that_fails_leaves_the_stream_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ["usual"]

    class Recording:
        def __init__(self, graph: object) -> None: ...

        def __enter__(self) -> None:
            stream[0] = "of recordings"

        def __exit__(self, *error: object) -> None:
            raise RuntimeError("operation failed due to a previous error during capture")

    for name, instead in (
        ("Stream", object),
        ("CUDAGraph", object),
        ("graph", Recording),
        ("current_stream", lambda: stream[0]),
        ("set_stream", lambda to: stream.__setitem__(0, to)),
    ):
        monkeypatch.setattr(torch.cuda, name, instead)
    with pytest.raises(RuntimeError, match="previous error"):
        cuda_graphs.Recorder().record(dict)
    assert stream == ["usual"]


def test_a_checkpoint_holds_rates_as_numbers() -> None:
    players, _ = steps(4, lambda recipe, players: GraphedStep(recipe, players, Again()))
    state = state_of(players)
    for name in ("generator_optimizer", "discriminator_optimizer"):
        assert isinstance(state[name]["param_groups"][0]["lr"], float)
        assert isinstance(getattr(players, name).param_groups[0]["lr"], torch.Tensor)


def test_only_what_can_be_recorded_is() -> None:
    one_gpu = Crew(0, 1, torch.device("cuda", 0))
    assert cuda_graphs.fits(tiny_recipe("precision=bf16"), one_gpu)
    assert not cuda_graphs.fits(tiny_recipe(), Crew(0, 1, CPU))
    assert not cuda_graphs.fits(tiny_recipe(), replace(one_gpu, size=2))
    assert not cuda_graphs.fits(tiny_recipe("precision=fp16"), one_gpu)
    assert not cuda_graphs.fits(find_recipe("stylegan2_32"), one_gpu)
    assert not cuda_graphs.fits(find_recipe("cyclegan_64"), one_gpu)
    assert not cuda_graphs.fits(find_recipe("wgan_28"), one_gpu)
    assert cuda_graphs.fits(find_recipe("r3gan_28"), one_gpu)
