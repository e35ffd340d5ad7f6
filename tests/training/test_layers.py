from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ganrt.errors import UsageError
from ganrt_training import ema
from ganrt_training.layers import (
    ConditionalBatchNorm2d,
    InstanceNorm2d,
    LabelledLatent,
    Verdict,
    doubled,
    group_deviation,
    halved,
    upsamplings,
)


@pytest.mark.parametrize(
    ("size", "first", "times"), [(8, 4, 1), (14, 7, 1), (28, 7, 2), (32, 4, 3), (40, 5, 3), (64, 4, 4), (384, 6, 6)]
)
def test_a_size_is_a_small_one_doubled(size: int, first: int, times: int) -> None:
    assert upsamplings("any", size) == (first, times)


@pytest.mark.parametrize("size", [4, 7, 9, 30, 36, 1 << 4 | 1])
def test_a_size_that_is_no_small_one_doubled_is_told(size: int) -> None:
    with pytest.raises(UsageError, match=f"^recipe any: image_size is {size}\nExpected 4, 5, 6 or 7 doubled"):
        upsamplings("any", size)


def test_a_label_goes_beside_the_latent_where_there_are_classes() -> None:
    z, y = torch.randn(3, 4), torch.tensor([1, 0, 1])
    assert torch.equal(LabelledLatent(4, 0)(z), z)
    labelled = LabelledLatent(4, 2)
    assert labelled.embedding is not None
    assert torch.equal(labelled(z, y), torch.cat([z, labelled.embedding.weight[y]], dim=1))
    assert labelled(z, y).shape[1] == labelled.features == 8


def test_a_verdict_adds_the_product_of_features_and_label() -> None:
    features, y = torch.randn(3, 5), torch.tensor([1, 0, 1])
    plain, judge = Verdict(5, 0), Verdict(5, 2)
    assert plain.state_dict().keys() == {"to_logit.weight", "to_logit.bias"}
    for verdict, labels in ((plain, None), (judge, y)):
        values = verdict.state_dict()
        for i in range(3):
            direction = values["to_logit.weight"][0]
            if labels is not None:
                direction = direction + values["embedding.weight"][labels[i]]
            torch.testing.assert_close(
                verdict(features, labels)[i], features[i] @ direction + values["to_logit.bias"][0]
            )


@pytest.mark.parametrize("classes", [0, 3])
def test_a_class_conditional_norm_folds_into_what_it_does_at_inference(classes: int) -> None:
    norm, y = ConditionalBatchNorm2d(2, classes), torch.arange(6) % 3 if classes else None
    nn.init.normal_(norm.scale.weight)
    nn.init.normal_(norm.shift.weight)
    for _ in range(3):
        norm(3 * torch.randn(6, 2, 4, 4) + 1, y)
    x = torch.randn(6, 2, 4, 4)
    expected = F.batch_norm(x, norm.norm.running_mean, norm.norm.running_var)
    rows = torch.zeros(6, dtype=torch.int64) if y is None else y
    expected = expected * norm.scale.weight[rows, :, None, None] + norm.shift.weight[rows, :, None, None]
    torch.testing.assert_close(norm.eval()(x, y), expected)
    torch.testing.assert_close(norm.folded()(x, y), expected)


def test_groups_without_variety_are_told_from_groups_with_it() -> None:
    varied = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    same = varied[::4].repeat_interleave(4, dim=0)
    deviation = group_deviation(torch.cat([varied, same]), 4)
    assert deviation.shape == (16, 1, 5, 5)
    assert deviation[:8].mean() > 0.5
    assert deviation[8:].max() < 1e-3
    expected = varied[4:].var(dim=0, unbiased=False).sqrt().mean(dim=0)
    torch.testing.assert_close(deviation[5, 0], expected, atol=1e-4, rtol=1e-4)


def test_groups_are_smaller_where_a_batch_does_not_fall_into_them() -> None:
    x = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    pairs = torch.cat([group_deviation(x[i : i + 2], 2) for i in (0, 2, 4)])
    torch.testing.assert_close(group_deviation(x, 4), pairs)
    assert group_deviation(x[:5], 4).max() < 1e-3  # groups of one do not vary
    assert torch.isfinite(group_deviation(x[:1].requires_grad_(), 4)).all()


def test_sides_are_halved_and_doubled_through_the_filter_1_3_3_1() -> None:
    x = torch.randn(2, 3, 12, 8, dtype=torch.float64)
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    kernel = (torch.outer(tap, tap) / 64).expand(3, 1, 4, 4)
    torch.testing.assert_close(halved(x), F.conv2d(x, kernel, stride=2, padding=1, groups=3))
    up = F.conv_transpose2d(x, 4 * kernel, stride=2, padding=1, groups=3)
    torch.testing.assert_close(doubled(x)[:, :, 1:-1, 1:-1], up[:, :, 1:-1, 1:-1])


def test_the_instance_norm_is_pytorchs() -> None:
    x = 3 * torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)) + 1
    torch.testing.assert_close(InstanceNorm2d()(x), F.instance_norm(x, eps=1e-5), atol=1e-5, rtol=1e-5)


# The averaged generator ----------------------------------------------------------------------------------------------


class Shifted(nn.Module):
    """z float [N, 2] plus a row by y, times a weight, through a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(2, 2, _weight=torch.tensor([[0.0, 0.0], [8.0, -2.0]]))
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.norm = nn.BatchNorm2d(2, affine=False)

    def forward(self, z: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        x = z if y is None else z + self.rows(y)
        normed: torch.Tensor = self.norm((self.weight * x)[:, :, None, None])
        return normed


def test_the_average_moves_towards_the_generator_and_takes_over_what_is_no_parameter() -> None:
    average, model = Shifted(), Shifted()
    with torch.no_grad():
        model.weight.fill_(3.0)
    model(torch.randn(8, 2), torch.arange(8) % 2)
    ema.update(average, model, 0.75)
    assert average.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 3)
    assert torch.equal(average.norm.running_mean, model.norm.running_mean)  # type: ignore[arg-type]
    assert model.weight.item() == 3


@pytest.mark.parametrize(("classes", "mean"), [(2, [12.0, -3.0]), (0, [0.0, 0.0])])
def test_statistics_are_measured_anew_with_the_averaged_weights_and_all_classes_alike(
    classes: int, mean: list[float]
) -> None:
    average = Shifted()
    with torch.no_grad():
        average.weight.fill_(3.0)
    average.norm.running_mean.fill_(99.0)  # type: ignore[union-attr]
    model = ema.standing_statistics(average, 2, classes)
    assert not model.training
    assert model.norm.running_mean.tolist() == pytest.approx(mean, abs=0.3)  # type: ignore[union-attr,operator]
    deviations = [(9 + 12**2) ** 0.5, (9 + 3**2) ** 0.5] if classes else [3.0, 3.0]
    assert model.norm.running_var.sqrt().tolist() == pytest.approx(deviations, abs=0.3)  # type: ignore[union-attr,operator]
    assert average.norm.running_mean.tolist() == [99, 99]  # type: ignore[union-attr]
    again = ema.standing_statistics(average, 2, classes)
    assert torch.equal(model.norm.running_mean, again.norm.running_mean)  # type: ignore[union-attr,arg-type]
