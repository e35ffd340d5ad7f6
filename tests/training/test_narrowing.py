"""A generator with a channel less makes nearly the same images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.narrowing import narrowed
from ganrt_training.gans import find_recipe


def made(generator: Any) -> torch.Tensor:
    z = torch.randn(60, generator.z_dim, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        images: torch.Tensor = generator(z, torch.arange(60) % 3)
    return images


def small(*settings: str) -> Any:
    torch.manual_seed(0)
    recipe = find_recipe("cgan_projection_28").with_overrides(["width=4", "z_dim=4", *settings])
    return recipe.build(recipe, 1, 3)[0].eval()


@pytest.mark.parametrize("settings", [(), ("noise=1", "z_dim=20")])
def test_a_channel_that_does_nothing_is_the_one_that_goes(settings: tuple[str, ...]) -> None:
    generator = small(*settings)
    with torch.no_grad():
        generator.to_image.weight[:, 2] = 0
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    narrow: Any = narrowed(generator, 3)
    assert (narrow.to_image.in_channels, narrow.up2.out_channels, narrow.z_dim) == (3, 3, generator.z_dim)
    torch.testing.assert_close(made(narrow), made(generator), atol=1e-3, rtol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())


def test_the_others_take_over_what_a_channel_did() -> None:
    generator = small()
    with torch.no_grad():  # two channels that are one, so that nothing need be lost
        for table in (generator.norm2.scale.weight, generator.norm2.shift.weight):
            table[:, 1] = table[:, 0]
        generator.up2.weight[:, 1] = generator.up2.weight[:, 0]
        generator.to_image.weight[:, :2] *= 0.1
    narrow = narrowed(generator, 3)
    torch.testing.assert_close(made(narrow), made(generator), atol=1e-3, rtol=0)
