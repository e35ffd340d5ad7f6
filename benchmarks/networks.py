"""``python -m benchmarks networks``: writes the networks that are timed as ONNX files, in single and half precision.

Weights are random, scaled so that the pixels vary as those of a trained generator do: speed does not
depend on their values, the size of a PNG does.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from benchmarks import fashion_train
from ganrt.card import Card
from ganrt.models import find_model
from ganrt_training.again import export_again
from ganrt_training.assemble import OPSET, append_pixels, clean, set_inputs, with_card
from ganrt_training.fold import fold_norms
from ganrt_training.gans import find_recipe
from ganrt_training.tune import tune

NAMES = ("fashion", "dcgan64", "mlp28")


@dataclass(frozen=True)
class Network:
    """A generator to time.

    ``module`` maps z float [N, z_dim] (and y int64 [N], with classes) to [-1, 1] NCHW; ``path`` is it as ganrt
    exports it, ``plain`` as ``torch.onnx.export`` does.
    """

    name: str
    module: nn.Module
    path: Path
    plain: Path
    z_dim: int
    classes: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to, such as that of gpu.py")


def run(options: argparse.Namespace) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = network(name, Path(folder)).path
            for out, fp16 in ((f"{name}.onnx", False), (f"{name}.fp16.onnx", True)):
                card = export_again(path, options.out / out, fp16=fp16, overwrite=True)
                print(f"{options.out / out}: at most {card.parity['uint8_max']} grey levels from its source")
    return 0


def network(name: str, folder: Path) -> Network:
    """``fashion``, the shipped generator's network; ``dcgan64``, the tutorial's DCGAN; ``mlp28``, a dense GAN."""
    torch.manual_seed(0)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    plain = folder / f"{name}-plain.onnx"
    if name == "fashion":
        recipe = find_recipe(fashion_train.RECIPE).with_overrides(fashion_train.settings("fashion"))
        module = _settled(recipe.build(recipe, 1, 10)[0], recipe.z_dim, 10)
        plain.write_bytes(_exported(module, recipe.z_dim, 10).SerializeToString())
        return Network(name, module, find_model("fashion"), plain, recipe.z_dim, 10)
    module = _settled(_dcgan64() if name == "dcgan64" else _mlp28(), 100, 0)
    plain.write_bytes(_exported(module, 100, 0).SerializeToString())
    net = Network(name, module, folder / f"{name}.onnx", plain, 100, 0)
    net.path.write_bytes(as_generator(net))
    return net


def as_generator(net: Network) -> bytes:
    """The module as ganrt exports it: the bytes of a generator."""
    size, channels = (64, 3) if net.name == "dcgan64" else (28, 1)
    model = _exported(fold_norms(net.module), net.z_dim, net.classes)
    set_inputs(model, net.z_dim, bool(net.classes))
    append_pixels(model, size=(size, size, channels), value_range=(-1, 1), nchw=True)
    tune(model)
    clean(model)
    names = tuple(str(y) for y in range(net.classes))
    card = Card(name=net.name, z_dim=net.z_dim, width=size, height=size, channels=channels, class_names=names)
    return with_card(model, card)


def _dcgan64() -> nn.Module:
    """100 → 512·256·128·64 → 3, as in PyTorch's DCGAN tutorial (4x4 kernels, batch norm, ReLU, tanh)."""

    def up(before: int, after: int, stride: int, padding: int) -> list[nn.Module]:
        return [
            nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]

    return nn.Sequential(
        nn.Unflatten(1, (100, 1, 1)),
        *up(100, 512, 1, 0),
        *up(512, 256, 2, 1),
        *up(256, 128, 2, 1),
        *up(128, 64, 2, 1),
        nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def _mlp28() -> nn.Module:
    """100 → 128 → 784."""
    return nn.Sequential(
        nn.Linear(100, 128), nn.LeakyReLU(0.2), nn.Linear(128, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28))
    )


@torch.no_grad()
def _settled(module: nn.Module, z_dim: int, classes: int) -> nn.Module:
    """In inference mode, with batch statistics of its own and outputs that fill the range."""
    z = torch.randn(256, z_dim)
    inputs = (z, torch.arange(256) % classes) if classes else (z,)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    module.train()(*inputs)
    module.eval()
    last = [m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))][-1]
    spread = module(*inputs).atanh().std()
    last.weight *= 0.6 / spread
    return module


def _exported(module: nn.Module, z_dim: int, classes: int) -> onnx.ModelProto:
    inputs = (torch.zeros(2, z_dim), torch.zeros(2, dtype=torch.int64))[: 2 if classes else 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=["z", "y"][: len(inputs)],
            output_names=["raw_images"],
            dynamic_shapes=({0: torch.export.Dim("N")},) * len(inputs),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return onnx.load_model_from_string(program.model_proto.SerializeToString())
