"""Somebody's PyTorch code and weights become generators of the contract, or are refused with what to do."""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from ganrt.card import Card
from ganrt.errors import GanrtError, ParityError, TrainingError, UsageError
from ganrt_training.probing import Said
from ganrt_training.torch_source import open_torch
from ganrt_training.wrap import export_foreign
from tests.training.elsewhere import Conditional, LabelsFirst, Plain, Styled, Tutorial, Wide, settled

CODE = "tests.training.elsewhere:"
Z = np.random.default_rng(7).standard_normal((256, 100)).astype(np.float32)


class Exporter:
    """Exports into one folder and keeps what was told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told = folder, list[str]()

    def __call__(
        self, name: str, weights: Any, said: Said | None = None, *, overwrite: bool = False, **options: Any
    ) -> Card:
        file = weights
        if not isinstance(weights, Path):
            file = self.folder / "weights.pth"
            torch.save(weights, file)
        code = name if ":" in name else CODE + name
        foreign = open_torch(code, file, said, tell=self.told.append, **options)
        return export_foreign(foreign, self.folder / "out.onnx", said, overwrite=overwrite, tell=self.told.append)

    def run(self, z: NDArray[Any], y: NDArray[Any] | None = None) -> NDArray[Any]:
        session = onnxruntime.InferenceSession(self.folder / "out.onnx", providers=["CPUExecutionProvider"])
        feeds = {"z": z} if y is None else {"z": z, "y": y}
        return np.asarray(session.run(None, feeds)[0]).astype(int)


@pytest.fixture
def export(tmp_path: Path) -> Exporter:
    return Exporter(tmp_path)


def levels(images: Tensor, low: float = -1, high: float = 1) -> NDArray[Any]:
    """What an image's values are in grey levels, by PyTorch: [N, H, W, C], not rounded."""
    scaled: NDArray[Any] = ((images - low) * (255 / (high - low)) + 0.5).clip(0, 255).permute(0, 2, 3, 1).numpy()
    return scaled


def is_near(found: NDArray[Any], images: Tensor, low: float = -1, high: float = 1) -> bool:
    """Within one grey level, of images that differ from one another."""
    assert found.std(axis=0).max() > 5
    return bool(np.abs(found - np.floor(levels(images, low, high))).max() <= 1)


@torch.no_grad()
def test_the_tutorials_dcgan_with_a_nested_checkpoint_of_several_gpus(export: Exporter) -> None:
    network = settled(Tutorial(1))
    checkpoint = {
        "epoch": 24,
        "args": argparse.Namespace(lr=2e-4, cuda=True),
        "best": np.float64(1.5),
        "netG": {f"module.{name}": value for name, value in network.state_dict().items()},
        "netD": nn.Conv2d(3, 1, 4).state_dict(),
        "optimizerG": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 2e-4, "params": [0]}]},
    }
    card = export("Tutorial", checkpoint, args='{"ngpu": 1}')
    assert (card.name, card.z_dim, card.width, card.height, card.channels) == ("out", 100, 16, 16, 3)
    assert card.parity["uint8_max"] <= 1 and card.parity["latents"] == 256
    assert is_near(export.run(Z), network(torch.from_numpy(Z)[:, :, None, None]))
    assert export.told[:2] == [
        "weights: those under the key 'netG', which alone fit; --key fixes it",
        "latents: z float32 [N, 100, 1, 1], found by trying; --z-shape 100,1,1 fixes it",
    ]
    assert "range: [-1, 1], guessed: its last operator is Tanh, and values of 256 samples run from -" in export.told[2]
    assert export.told[3].endswith("makes images [N, 3, 16, 16], 16x16 RGB with channels first")


@pytest.mark.parametrize(
    ("labels", "value_range", "channels"),
    [  # every other one is enough for `make test`: each pair of values is met
        pytest.param(labels, value_range, channels, marks=[pytest.mark.slow] * ((a + b + c) % 2))
        for a, labels in enumerate(("none", "int", "onehot"))
        for b, value_range in enumerate(((-1, 1), (0, 1), (0, 255)))
        for c, channels in enumerate((1, 3))
    ],
)
@torch.no_grad()
def test_labels_ranges_and_channels(export: Exporter, labels: str, value_range: tuple[int, int], channels: int) -> None:
    low, high = value_range
    settings: dict[str, Any] = {"channels": channels, "low": low, "high": high}
    z, y = torch.from_numpy(Z[:40, :12]), torch.arange(40) % 3
    said = None
    if labels == "none":
        network = settled(Plain(**settings))
        expected = network(z)
    elif labels == "int":
        network = settled(Conditional(**settings))
        expected = network(z, y)
    else:
        network = settled(Conditional(onehot=True, **settings))
        expected = network(z, nn.functional.one_hot(y, 3).float())
        settings["onehot"] = True
        said = Said(class_names=["a", "b", "c"])
    card = export(type(network).__name__, network.state_dict(), said, args=json.dumps(settings))
    named = {"none": (), "int": ("0", "1", "2"), "onehot": ("a", "b", "c")}[labels]
    assert (card.z_dim, card.channels, card.class_names) == (12, channels, named)
    assert any(f"range: [{low}, {high}], guessed" in sentence for sentence in export.told)
    assert is_near(export.run(Z[:40, :12], y.numpy() if named else None), expected, low, high)


@torch.no_grad()
def test_one_hot_labels_with_two_axes_more_and_labels_that_come_first(export: Exporter) -> None:
    wide = settled(Wide())
    said = Said(class_names=["a", "b", "c"], labels="onehot")
    export("Wide", wide.state_dict(), said, z_shape=(6, 1, 1))
    y = np.arange(9) % 3
    onehot = nn.functional.one_hot(torch.from_numpy(y), 3).float()[:, :, None, None]
    assert is_near(export.run(Z[:9, :6], y), wide(torch.from_numpy(Z[:9, :6])[:, :, None, None], onehot))
    first = settled(LabelsFirst())
    export("LabelsFirst", first.state_dict(), overwrite=True)
    assert is_near(export.run(Z[:9, :12], y), first(torch.from_numpy(y), torch.from_numpy(Z[:9, :12])))


@torch.no_grad()
def test_images_beside_something_else(export: Exporter) -> None:
    network = settled(Styled())
    export("Styled", network.state_dict())
    assert is_near(export.run(Z[:20, :12]), network(torch.from_numpy(Z[:20, :12]))[0])


WEIGHTS: dict[str, Callable[[nn.Module, Path], Path]] = {}


def saved(function: Callable[[nn.Module, Path], Path]) -> Callable[[nn.Module, Path], Path]:
    WEIGHTS[function.__name__] = function
    return function


@saved
def legacy_format(network: nn.Module, folder: Path) -> Path:
    torch.save(network.state_dict(), folder / "old.tar", _use_new_zipfile_serialization=False)
    return folder / "old.tar"


@saved
def safetensors(network: nn.Module, folder: Path) -> Path:
    save_file(network.state_dict(), folder / "new.safetensors")
    return folder / "new.safetensors"


@saved
def compiled_and_parallel(network: nn.Module, folder: Path) -> Path:
    torch.save({f"_orig_mod.module.{k}": v for k, v in network.state_dict().items()}, folder / "c.pt")
    return folder / "c.pt"


@saved
def without_counters(network: nn.Module, folder: Path) -> Path:
    torch.save({k: v for k, v in network.state_dict().items() if "num_batches" not in k}, folder / "c.pt")
    return folder / "c.pt"


@saved
def lightning(network: nn.Module, folder: Path) -> Path:
    both = {f"generator.{k}": v for k, v in network.state_dict().items()} | {"discriminator.w": torch.zeros(3)}
    torch.save({"state_dict": both, "epoch": 3, "hyper_parameters": {"lr": 0.1}}, folder / "l.ckpt")
    return folder / "l.ckpt"


@saved
def the_same_twice(network: nn.Module, folder: Path) -> Path:
    torch.save({"g": network.state_dict(), "best": network.state_dict()}, folder / "t.pt")
    return folder / "t.pt"


@pytest.mark.parametrize("save", WEIGHTS.values(), ids=WEIGHTS.keys())
@torch.no_grad()
def test_weights_as_people_save_them(export: Exporter, save: Callable[[nn.Module, Path], Path]) -> None:
    network = settled(Plain())
    export("Plain", save(network, export.folder))
    assert is_near(export.run(Z[:20, :12]), network(torch.from_numpy(Z[:20, :12])))


@torch.no_grad()
def test_of_several_weights_that_fit_the_key_decides(export: Exporter) -> None:
    both = {"g": settled(Plain(), 1).state_dict(), "ema": {"g": settled(Plain(), 2).state_dict()}}
    with pytest.raises(UsageError, match=r"several weights fit: g \(\d+ tensors\), ema\.g \(\d+ tensors\)\nSay which"):
        export("Plain", both)
    export("Plain", both, key="ema.g")
    network = Plain()
    network.load_state_dict(both["ema"]["g"])
    assert is_near(export.run(Z[:20, :12]), network.eval()(torch.from_numpy(Z[:20, :12])))
    with pytest.raises(UsageError, match=r"no weights under the key 'gg'\nIt has: g \(\d+ tensors\), "):
        export("Plain", both, key="gg", overwrite=True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is the current one, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("their"):
            del sys.modules[name]


SCRIPT = """
import argparse, torch
parser = argparse.ArgumentParser()
parser.add_argument("--size", type=int, default=8)
opt = parser.parse_args()
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.ConvTranspose2d(5, 1, opt.size)
    def forward(self, z):
        return torch.tanh(self.up(z))
class nets:
    Net = Net
"""


@pytest.mark.parametrize("code", ["their_script:Net", "their_script.py:nets.Net", "sub/their_other.py:Net"])
def test_code_in_the_current_folder_that_parses_arguments(export: Exporter, here: Path, code: str) -> None:
    (here / "sub").mkdir()
    for name in ("their_script.py", "sub/their_other.py"):
        (here / name).write_text(SCRIPT)
    network = nn.ConvTranspose2d(5, 1, 8)
    assert export(code, {f"up.{k}": v for k, v in network.state_dict().items()}).z_dim == 5


def pickled(folder: Path) -> Path:
    torch.save(Plain(), folder / "whole.pth")
    return folder / "whole.pth"


class _Runs:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


def with_code(folder: Path) -> Path:
    (folder / "code.pth").write_bytes(pickle.dumps({"w": _Runs()}))
    return folder / "code.pth"


def scripted(folder: Path) -> Path:
    traced: Any = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    torch.jit.save(traced, folder / "script.pt")
    return folder / "script.pt"


def cut(folder: Path) -> Path:
    torch.save(Plain().state_dict(), folder / "cut.pth")
    data = (folder / "cut.pth").read_bytes()
    (folder / "cut.pth").write_bytes(data[: len(data) // 2])
    return folder / "cut.pth"


def numbers(folder: Path) -> Path:
    torch.save({"epoch": 3}, folder / "numbers.pth")
    return folder / "numbers.pth"


def no_safetensors(folder: Path) -> Path:
    (folder / "x.safetensors").write_bytes(b"nothing")
    return folder / "x.safetensors"


GOOD = settled(Plain()).state_dict()
SMALLER = {k: v for k, v in GOOD.items() if k != "layers.3.bias"} | {"new.weight": torch.zeros(1)}
OTHER = collections.OrderedDict(GOOD, **{"layers.0.weight": torch.zeros(24, 13)})
Broken = tuple[str, Any, dict[str, Any], type[GanrtError], str]
BROKEN: dict[str, Broken] = {
    "no colon": ("elsewhere.Plain:", GOOD, {}, UsageError, "Expected package.module:callable or file.py:callable"),
    "no module": ("not_there:Net", GOOD, {}, TrainingError, "not_there: cannot be imported: ModuleNotFoundError"),
    "no file": ("not_there.py:Net", GOOD, {}, UsageError, "not_there.py: there is no such file"),
    "no name": (CODE + "Nothing", GOOD, {}, UsageError, "has no 'Nothing'\nIts networks: Tutorial, Dense, Plain"),
    "no network": ("no_network", GOOD, {}, TrainingError, "makes str, not a network"),
    "no arguments": ("Tutorial", GOOD, {}, TrainingError, "missing 1 required positional argument: 'ngpu'\nGive its"),
    "arguments no JSON": ("Plain", GOOD, {"args": "{'z_dim': 3}"}, UsageError, "no JSON: Expecting property name"),
    "arguments a number": ("Plain", GOOD, {"args": "3"}, UsageError, "Expected an object, as in"),
    "missing and unexpected": (
        "Plain",
        SMALLER,
        {},
        TrainingError,
        "do not fit the network: missing: layers.3.bias; unexpected: new.weight\nIs the network made with",
    ),
    "another shape": (
        "Plain",
        OTHER,
        {},
        TrainingError,
        "of another shape: layers.0.weight [24, 13], not [24, 12]",
    ),
    "a pickled network": (
        "Plain",
        pickled,
        {},
        TrainingError,
        "holds Python objects besides weights (tests.training.elsewhere.Plain, which loading would run)\nIn the code",
    ),
    "code in a pickle": ("Plain", with_code, {}, TrainingError, "holds Python objects besides weights ("),
    "torchscript": ("Plain", scripted, {}, TrainingError, "is a TorchScript archive, a program and not weights"),
    "cut short": ("Plain", cut, {}, TrainingError, "It is damaged, cut short or something else."),
    "no weights": ("Plain", numbers, {}, TrainingError, "holds no weights by name\nSave them so: torch.save("),
    "no safetensors": ("Plain", no_safetensors, {}, TrainingError, "cannot be read as safetensors"),
    "no weights file": ("Plain", Path("none.pth"), {}, TrainingError, "none.pth: cannot be read: No such file"),
    "wrong z shape": (
        "Plain",
        GOOD,
        {"z_shape": (13,)},
        TrainingError,
        "makes no images [N, C, H, W] of what was tried:\n  z float32 [N, 13]: ",
    ),
    "empty z shape": ("Plain", GOOD, {"z_shape": (0,)}, UsageError, "z shape 0\nExpected sizes after N"),
    "flat images": ("Flat", GOOD, {}, TrainingError, "z float32 [N, 12] gave [2, 64]"),
    "random": ("Noisy", GOOD, {}, TrainingError, "makes other images of the same latents when it is called again"),
    "coupled": ("Coupled", GOOD, {}, ParityError, "from the row alone"),
    "three inputs": ("Three", GOOD, {}, TrainingError, "its forward takes z, a, b\nExpected latents"),
    "classes for nothing": (
        "Plain",
        GOOD,
        {"said": Said(class_names=["a"])},
        UsageError,
        "its forward takes z and no labels",
    ),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_exported_is_told(export: Exporter, capsys: pytest.CaptureFixture[str], case: Broken) -> None:
    name, weights, options, kind, message = case
    with pytest.raises(GanrtError) as raised:
        export(name, weights(export.folder) if callable(weights) else weights, **options)
    assert message in str(raised.value)
    assert type(raised.value) is kind
    assert not (export.folder / "out.onnx").exists()
    assert "this ran" not in capsys.readouterr().out


def test_two_inputs_without_classes_and_too_many_of_them(export: Exporter) -> None:
    weights = settled(Conditional(onehot=True)).state_dict()
    with pytest.raises(UsageError, match=r"takes noise, labels: two inputs\nName its classes"):
        export("Conditional", weights, args='{"onehot": true}')
    weights = settled(Conditional()).state_dict()
    with pytest.raises(UsageError, match=r"takes labels of 3 classes \(y int64 \[N\]\); 2 are named: a, b\nName them"):
        export("Conditional", weights, Said(class_names=["a", "b"]))
    with pytest.raises(UsageError, match=r"classes a, a, b\nGive each class a name of its own"):
        export("Conditional", weights, Said(class_names=["a", "a", "b"]))


def test_a_range_that_is_not_clear_is_asked_for(export: Exporter) -> None:
    weights = settled(Plain(low=-3, high=5)).state_dict()
    settings = '{"low": -3, "high": 5}'
    with pytest.raises(UsageError, match=r"the range of its images is not clear: values of 256 samples run from -"):
        export("Plain", weights, args=settings)
    with pytest.raises(UsageError, match=r"of its values are outside of 0,0\.1; they run from"):
        export("Plain", weights, Said(value_range=(0, 0.1)), args=settings)
    card = export("Plain", weights, Said(value_range=(-3, 5)), args=settings)
    assert card.parity["uint8_max"] <= 1 and not any("guessed" in sentence for sentence in export.told)
