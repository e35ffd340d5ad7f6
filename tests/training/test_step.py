from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ganrt_training.losses import LOSSES, Loss
from ganrt_training.players import make_players, restore, set_rates, state_of
from ganrt_training.recipe import Recipe
from ganrt_training.run_folder import to_float
from ganrt_training.step import Players, Turn, adversarial_step
from tests.training.tiny import quick_data, quick_recipe

Weights = dict[str, Tensor]


def players_of(recipe: Recipe, classes: int = 0) -> Players:
    torch.manual_seed(0)
    return make_players(recipe, 1, classes, torch.device("cpu"))


def a_turn(recipe: Recipe, number: int = 0, *, y: bool = False, **changes: object) -> Turn:
    """The first batch of the quick images; the latents of a step are decided by its number."""
    torch.manual_seed(number)
    data = quick_data(recipe.batch_size)
    turn = Turn(
        number=number,
        images=to_float(torch.from_numpy(data.images)),
        y=torch.from_numpy(data.labels) if y else None,
        draw_z=lambda count: torch.randn(count, recipe.z_dim),
        ema_decay=0.75,
    )
    return dataclasses.replace(turn, **changes)  # type: ignore[arg-type]


def weights(network: nn.Module) -> Weights:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def unchanged(before: Weights, network: nn.Module) -> list[str]:
    return [name for name, parameter in network.named_parameters() if torch.equal(before[name], parameter)]


# An update -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_changes_every_parameter_and_moves_the_average_towards_the_generator(precision: str) -> None:
    recipe = quick_recipe("cgan_projection_28", f"precision={precision}", "loss=non_saturating")
    players = players_of(recipe, 2)
    if precision == "fp16":  # at first its scaler tries how far it can go
        players.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before, judge_before = weights(players.generator), weights(players.discriminator)
    figures = adversarial_step(recipe, players, a_turn(recipe, y=True))
    assert unchanged(before, players.generator) == unchanged(judge_before, players.discriminator) == []
    assert all(torch.isfinite(value) for value in figures.values())
    for name, averaged in players.averaged.named_parameters():
        after = dict(players.generator.named_parameters())[name].detach()
        torch.testing.assert_close(averaged, 0.75 * before[name] + 0.25 * after)


def test_half_precision_computes_nearly_what_float32_does() -> None:
    told = {}
    for precision in ("fp32", "bf16", "fp16"):
        recipe = quick_recipe("r3gan_28", f"precision={precision}")
        told[precision] = adversarial_step(recipe, players_of(recipe), a_turn(recipe))
        assert {value.dtype for value in told[precision].values()} == {torch.float32}
    for precision, tolerance in (("bf16", 0.02), ("fp16", 0.003)):
        assert told[precision]["generator_loss"] != told["fp32"]["generator_loss"]
        torch.testing.assert_close(told[precision], told["fp32"], rtol=tolerance, atol=tolerance)


def test_an_overflow_in_float16_skips_the_update_and_lowers_the_scale() -> None:
    recipe = quick_recipe("dcgan_28", "precision=fp16")
    players = players_of(recipe)
    players.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    before, judge_before = weights(players.generator), weights(players.discriminator)
    figures = adversarial_step(recipe, players, a_turn(recipe))
    assert unchanged(before, players.generator) == list(before)
    assert unchanged(judge_before, players.discriminator) == list(judge_before)
    assert all(torch.isfinite(value) for value in figures.values())
    assert players.scaler.get_scale() == 2.0**98  # halved for each of the two


def test_the_discriminator_learns_to_tell_and_then_the_generator_to_fool_it() -> None:
    recipe = quick_recipe("cgan_projection_28", "lr_generator=0", "lr_discriminator=0.02")
    players = players_of(recipe, 2)
    z = torch.randn(recipe.batch_size, recipe.z_dim, generator=torch.Generator().manual_seed(0))

    def step() -> dict[str, float]:
        figures = adversarial_step(recipe, players, a_turn(recipe, y=True, draw_z=lambda count: z))
        return {name: float(value) for name, value in figures.items()}

    first = step()
    for _ in range(30):
        told = step()
    assert told["discriminator_loss"] < 0.5 < first["discriminator_loss"]
    assert (told["real_accuracy"], told["fake_accuracy"]) == (1, 1)

    players.discriminator_optimizer.param_groups[0]["lr"] = 0
    players.generator_optimizer.param_groups[0]["lr"] = 0.01
    for _ in range(40):
        fooled = step()
    assert fooled["generator_loss"] < told["generator_loss"] - 0.5
    assert fooled["fake_accuracy"] < 0.5


def test_only_every_so_manieth_step_is_one_of_the_generator() -> None:
    recipe = quick_recipe("dcgan_28", "d_steps=3")
    players = players_of(recipe)
    moved = []
    for number in range(6):
        before, judge_before, average = (
            weights(network) for network in (players.generator, players.discriminator, players.averaged)
        )
        figures = adversarial_step(recipe, players, a_turn(recipe, number))
        moved.append("generator_loss" in figures)
        assert unchanged(judge_before, players.discriminator) == []
        assert unchanged(before, players.generator) == ([] if moved[-1] else list(before))
        assert unchanged(average, players.averaged) == ([] if moved[-1] else list(average))
    assert moved == [False, False, True] * 2


def test_clipping_keeps_the_discriminators_weights_within_and_leaves_the_generators() -> None:
    recipe = quick_recipe("wgan_28", "d_steps=1", "clip=0.005")
    players = players_of(recipe)
    assert max(p.abs().max() for p in players.discriminator.parameters()) > 0.01
    adversarial_step(recipe, players, a_turn(recipe))
    assert all(p.abs().max() <= 0.005 for p in players.discriminator.parameters())
    assert max(p.abs().max() for p in players.generator.parameters()) > 0.005


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("wgan_gp_28", ("d_steps=1", "gradient_penalty=0.0001", "loss=wasserstein")),
        ("wgan_gp_28", ("d_steps=1", "gradient_penalty=0.0001", "loss=least_squares", "r1=0.5", "r2=0.25")),
        ("r3gan_28", ("blocks=1", "orthogonal=0.01")),
    ],
)
def test_a_batch_in_parts_gives_the_update_of_the_whole(name: str, overrides: tuple[str, ...]) -> None:
    # The generator's batch norms are left out; the gradient penalty is random, and so small that it does not matter.
    table = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    moved, told = [], []
    for parts in (1, 2, 4):
        recipe = quick_recipe(name, f"accumulate={parts}", *overrides)
        players = players_of(recipe)
        for norm in players.generator.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eval()
        for role in ("generator", "discriminator"):  # plain gradient descent: a difference stays in proportion
            network = getattr(players, role)
            setattr(players, f"{role}_optimizer", torch.optim.SGD(network.parameters(), lr=0.1))
        drawn: list[int] = []

        def draw_z(count: int, parts: int = parts, drawn: list[int] = drawn) -> Tensor:
            drawn.append(count)
            first = (len(drawn) - 1) % parts
            return (table[:8] if len(drawn) <= parts else table[8:])[first::parts]

        before = weights(players.generator) | {f"judge {k}": v for k, v in weights(players.discriminator).items()}
        told.append(adversarial_step(recipe, players, a_turn(recipe, draw_z=draw_z)))
        assert drawn == [8 // parts] * 2 * parts
        after = weights(players.generator) | {f"judge {k}": v for k, v in weights(players.discriminator).items()}
        moved.append({key: after[key] - before[key] for key in before})
    assert max(float(change.abs().max()) for change in moved[0].values()) > 1e-3
    for others, figures in zip(moved[1:], told[1:], strict=True):
        torch.testing.assert_close(others, moved[0], rtol=1e-3, atol=1e-5)
        steady = figures.keys() - {"gradient_penalty", "real_accuracy", "fake_accuracy"}  # by a part's own boundary
        torch.testing.assert_close({k: figures[k] for k in steady}, {k: told[0][k] for k in steady})


def test_each_part_has_images_of_all_classes_with_their_labels() -> None:
    images, y = torch.arange(6.0).view(6, 1, 1, 1), torch.tensor([0, 0, 1, 1, 2, 2])
    parts = list(Turn(0, images, y, lambda count: torch.zeros(count, 1), 0.9).parts(2))
    assert [(x.flatten().tolist(), None if y is None else y.tolist()) for x, y in parts] == [
        ([0, 2, 4], [0, 1, 2]),
        ([1, 3, 5], [0, 1, 2]),
    ]


# What the networks are shown -----------------------------------------------------------------------------------------


def test_reals_and_fakes_are_varied_wherever_the_discriminator_sees_them() -> None:
    seen: list[Tensor] = []

    def vary(x: Tensor) -> Tensor:
        seen.append(x)
        return x * 0

    for loss, times in (
        ("hinge", 3),
        ("relativistic", 4),
    ):  # reals, fakes; fakes again, and reals if they are looked at
        seen.clear()
        recipe = quick_recipe("dcgan_28", f"loss={loss}")
        players = players_of(recipe)
        figures = adversarial_step(recipe, players, a_turn(recipe, augment=vary))
        assert len(seen) == times
        assert sum(torch.equal(x, a_turn(recipe).images) for x in seen) == times - 2
        # What is the same cannot be told apart.
        expected = {"hinge": 2.0, "relativistic": 0.6931}[loss]
        assert figures["discriminator_loss"].item() == pytest.approx(expected, abs=1e-3)


def test_gradients_of_both_networks_are_shared_before_they_are_used() -> None:
    recipe = quick_recipe("r3gan_28", "blocks=1")
    players = players_of(recipe)
    shared: list[nn.Module] = []

    def share(network: nn.Module) -> None:
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
        for parameter in network.parameters():
            parameter.grad = None
        shared.append(network)

    before, judge_before = weights(players.generator), weights(players.discriminator)
    adversarial_step(recipe, players, a_turn(recipe, share=share))
    assert shared == [players.discriminator, players.generator]
    assert unchanged(before, players.generator) == list(before)
    assert unchanged(judge_before, players.discriminator) == list(judge_before)


def test_the_generators_step_leaves_no_gradient_in_the_discriminator() -> None:
    recipe = quick_recipe("dcgan_28")
    players = players_of(recipe)
    at_share: list[Weights] = []

    def share(network: nn.Module) -> None:
        judge = players.discriminator
        at_share.append({n: p.grad.clone() for n, p in judge.named_parameters() if p.grad is not None})

    adversarial_step(recipe, players, a_turn(recipe, share=share))
    torch.testing.assert_close(at_share[1], at_share[0], rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in players.discriminator.parameters())


# Figures -------------------------------------------------------------------------------------------------------------

ALWAYS = {"discriminator_loss", "generator_loss", "real_accuracy", "fake_accuracy"}


@pytest.mark.parametrize(
    ("name", "overrides", "steady", "lazy"),
    [
        ("dcgan_28", (), set(), {}),
        ("r3gan_28", ("penalty_interval=2",), set(), {"r1": 2, "r2": 2}),
        ("wgan_gp_28", ("d_steps=1", "penalty_interval=3"), set(), {"gradient_penalty": 3}),
        ("biggan_32", ("d_steps=1",), {"orthogonal"}, {}),
        ("stylegan2_32", ("penalty_interval=2", "path_length_interval=3"), set(), {"r1": 2, "path_length": 3}),
    ],
)
def test_figures_are_losses_accuracies_and_the_penalties_that_are_due(
    name: str, overrides: tuple[str, ...], steady: set[str], lazy: dict[str, int]
) -> None:
    recipe = quick_recipe(name, *overrides)
    players = players_of(recipe)
    for number in range(4):
        figures = adversarial_step(recipe, players, a_turn(recipe, number))
        due = {penalty for penalty, interval in lazy.items() if number % interval == 0}
        assert figures.keys() == ALWAYS | steady | due
        assert all(value.ndim == 0 and not value.requires_grad and torch.isfinite(value) for value in figures.values())


def test_a_path_length_interval_counts_the_generators_steps() -> None:
    recipe = quick_recipe("stylegan2_32", "d_steps=2", "path_length_interval=2", "r1=0")
    players = players_of(recipe)
    figures = [adversarial_step(recipe, players, a_turn(recipe, number)) for number in range(8)]
    assert [number for number, told in enumerate(figures) if "path_length" in told] == [1, 5]


def test_a_penalty_of_twice_the_weight_is_twice_as_large_and_changes_the_update() -> None:
    told: list[dict[str, Tensor]] = []
    judges: list[Weights] = []
    for weight in (0, 1, 2):
        recipe = quick_recipe("r3gan_28", f"r1={weight}", "r2=0")
        players = players_of(recipe)
        players.discriminator_optimizer = torch.optim.SGD(players.discriminator.parameters(), lr=0.1)
        told.append(adversarial_step(recipe, players, a_turn(recipe)))
        judges.append(weights(players.discriminator))
    assert "r1" not in told[0]
    torch.testing.assert_close(told[2]["r1"], 2 * told[1]["r1"])
    changes = [sum(float((judge[k] - judges[0][k]).abs().sum()) for k in judge) for judge in judges]
    assert changes[2] == pytest.approx(2 * changes[1], rel=1e-3)
    assert changes[1] > 0


def test_losses_are_those_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    constant: Callable[[float], Callable[[Tensor, Tensor], Tensor]] = lambda value: (  # noqa: E731
        lambda real, fake: (real.sum() + fake.sum()) * 0 + value
    )
    monkeypatch.setitem(LOSSES, "hinge", Loss(constant(3.0), constant(5.0)))
    recipe = quick_recipe("dcgan_28", "loss=hinge", "accumulate=2")
    figures = adversarial_step(recipe, players_of(recipe), a_turn(recipe))
    assert (figures["discriminator_loss"].item(), figures["generator_loss"].item()) == (3, 5)


# Players -------------------------------------------------------------------------------------------------------------


def test_learning_rates_fall_to_zero_in_the_last_part_of_a_run() -> None:
    recipe = quick_recipe("dcgan_28", "lr_generator=0.5", "lr_discriminator=1", "lr_decay=0.25")
    players = players_of(recipe)
    for done, left in ((0.0, 1.0), (0.75, 1.0), (0.875, 0.5), (1.0, 0.0)):
        set_rates(recipe, players, done)
        assert players.generator_optimizer.param_groups[0]["lr"] == 0.5 * left
        assert players.discriminator_optimizer.param_groups[0]["lr"] == left
    set_rates(quick_recipe("dcgan_28", "lr_decay=0"), players, 0.99)
    assert players.generator_optimizer.param_groups[0]["lr"] == recipe.lr_generator * 2e-4 / 0.5


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_players_brought_back_go_on_as_those_they_were(optimizer: str) -> None:
    recipe = quick_recipe("stylegan2_32", "precision=fp16", f"optimizer={optimizer}")
    players = players_of(recipe)
    adversarial_step(recipe, players, a_turn(recipe, 0))
    where = {"step": 1, "seconds": 2.5, "augment_p": 0.25, "best": 7.0}
    torch.manual_seed(9)
    others = make_players(recipe, 1, 0, torch.device("cpu"))
    assert restore(copy.deepcopy(state_of(players)) | where, others) == where
    for one in (players, others):
        adversarial_step(recipe, one, a_turn(recipe, 1))
    for name, tensor in players.averaged.state_dict().items():
        assert torch.equal(tensor, others.averaged.state_dict()[name]), name
    assert players.scaler.state_dict() == others.scaler.state_dict()
