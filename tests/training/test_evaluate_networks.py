"""Feature networks of ONNX files: how they are found and fed, and what they give."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ganrt.encode import resize, to_mode
from ganrt.errors import GanrtError, UnknownModel, UsageError
from ganrt.models import list_models
from ganrt.providers import gpus
from ganrt_training.evaluation.networks import open_network
from ganrt_training.export import traced
from tests.training.seeing import Pixels, pictures, proto, saved

IMAGENET = "mean=0.485,0.456,0.406:std=0.229,0.224,0.225"


def see(path: Path | str, images: Pixels, options: str = "") -> NDArray[np.float32]:
    return open_network(f"{path}{options}", device="cpu", threads=1).see(images).features


def means(images: Pixels) -> NDArray[np.float64]:
    """What the network of ``proto`` makes of them when it is fed [0, 1]."""
    wanted: NDArray[np.float64] = images.mean((1, 2)) / 255
    return wanted


# A network as users have it ------------------------------------------------------------------------------------------


class Theirs(nn.Module):
    """A classifier in inference mode, with what a training framework leaves in it."""

    def __init__(self) -> None:
        super().__init__()
        self.below = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        )
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(16, 5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pooled = nn.functional.adaptive_avg_pool2d(self.below(image), 1)
        return pooled, self.last(self.drop(pooled.flatten(1)))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    network = Theirs().train()
    network(torch.randn(64, 3, 32, 32))  # the batch norm sees something
    network.eval()
    dims = {"image": {0: torch.export.Dim("batch")}}
    model = traced(network, {"image": torch.zeros(2, 3, 32, 32)}, dims, ["avgpool", "scores"])
    path = tmp_path_factory.mktemp("theirs") / "resnet.onnx"
    path.write_bytes(model.SerializeToString())
    return network, path


def test_a_users_network_sees_what_it_sees_in_pytorch(theirs: tuple[nn.Module, Path]) -> None:
    """Float NCHW, normalised as ImageNet's are, fed with images of another size: about says all of it."""
    network, path = theirs
    images = pictures(300, 40, 24)
    options = f":{IMAGENET}:features=avgpool:logits=scores"
    opened = open_network(f"{path}{options}", device="cpu", threads=1)
    done: list[tuple[int, int]] = []
    seen = opened.see(images, lambda *counts: done.append(counts))
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    given = torch.from_numpy(resize(images, (32, 32), "bilinear")).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        features, logits = network((given - mean) / std)
    assert np.allclose(seen.features, features.flatten(1), atol=1e-5)
    assert seen.logits is not None and np.allclose(seen.logits, logits, atol=1e-5)
    assert seen.features.shape == (300, 16) and {seen.features.dtype, seen.logits.dtype} == {np.dtype(np.float32)}
    assert done == [(256, 300), (300, 300)]
    assert (opened.name, opened.class_names) == ("resnet", ())
    about = opened.about
    assert about["input"] == "float32 NCHW, black 0, white 1, then minus 0.485 0.456 0.406, by 0.229 0.224 0.225"
    assert (about["features"], about["logits"], about["dim"], about["size"]) == ("avgpool", "scores", 16, [32, 32])
    assert about["resize"].startswith("bilinear, antialiased") and len(about["sha256"]) == 64 and "note" not in about


def test_which_output_holds_the_features_must_be_said_where_several_may(theirs: tuple[nn.Module, Path]) -> None:
    with pytest.raises(UsageError, match=r"gives 'avgpool' float32 .*'scores' float32.*\n.*:features=OUTPUT") as error:
        open_network(theirs[1], device="cpu")
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match=r"no output 'pool'\nIt has: 'avgpool'"):
        open_network(f"{theirs[1]}:features=pool")


# How it is fed -------------------------------------------------------------------------------------------------------


def test_what_is_not_said_of_the_range_is_noted(tmp_path: Path) -> None:
    images, path = pictures(5), saved(tmp_path)
    assert np.allclose(see(path, images), means(images), atol=1e-6)
    assert "0 and 1 were taken" in open_network(path).about["note"]
    assert np.allclose(see(path, images, ":range=-1,1"), means(images) * 2 - 1, atol=1e-6)
    assert "note" not in open_network(f"{path}:range=-1,1").about
    assert np.allclose(see(path, images, ":range=0,255:mean=100:std=2"), (means(images) * 255 - 100) / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "dtype", "factor", "atol"),
    [
        (["N", 8, 8, 3], TensorProto.FLOAT, 1, 1e-6),
        (["N", 3, 8, 8], TensorProto.FLOAT16, 1, 1e-3),
        (["N", 8, 8, 3], TensorProto.UINT8, 255, 1e-4),
        (["N", 3, 8, 8], TensorProto.UINT8, 255, 1e-4),
        ([4, 3, 8, 8], TensorProto.FLOAT, 1, 1e-6),
    ],
)
def test_types_layouts_and_fixed_batches_are_read_from_the_input(
    given: list[int | str | None], dtype: int, factor: int, atol: float, tmp_path: Path
) -> None:
    images = pictures(10)
    path = saved(tmp_path, given=given, dtype=dtype, made=[given[0], 3])
    assert np.allclose(see(path, images), means(images) * factor, atol=atol)


def test_pooled_maps_are_features(tmp_path: Path) -> None:
    images = pictures(3)
    assert np.allclose(see(saved(tmp_path, made=["N", 3, 1, 1]), images), means(images), atol=1e-6)


def test_grey_and_coloured_images_become_what_the_network_takes(tmp_path: Path) -> None:
    grey, coloured = pictures(4, channels=1), pictures(4)
    path = saved(tmp_path)
    assert np.allclose(see(path, grey), np.repeat(means(grey), 3, axis=1), atol=1e-6)
    path = saved(tmp_path, given=["N", 1, 8, 8], made=["N", 1])
    assert np.allclose(see(path, coloured), means(to_mode(coloured, "l")), atol=1e-6)


def test_a_network_of_any_size_is_fed_images_as_they_are_or_as_is_said(tmp_path: Path) -> None:
    path, images = saved(tmp_path, given=["N", 3, "H", "W"]), pictures(4, 20, 12)
    assert np.allclose(see(path, images), means(images), atol=1e-6)
    assert open_network(path).about["resize"] == "none: images as they are"
    wanted = means(resize(images, (10, 6), "bilinear"))
    assert np.allclose(see(path, images, ":size=6x10"), wanted, atol=1e-6)
    assert open_network(f"{path}:size=6x10").about["size"] == [6, 10]
    with pytest.raises(UsageError, match=r"one side is dynamic\nSay :size=HEIGHTxWIDTH"):
        open_network(saved(tmp_path, given=["N", 3, "H", 8]))


def test_where_the_channels_are_can_be_said(tmp_path: Path) -> None:
    path = saved(tmp_path, given=["N", 3, 8, 3])
    with pytest.raises(UsageError, match="channels first or last\nSay which: :layout=nchw"):
        open_network(path)
    images = pictures(2, 8, 3)
    assert np.allclose(see(path, images, ":layout=nchw"), means(images), atol=1e-6)
    with pytest.raises(UsageError, match="channels must be 1 or 3, by a number"):
        open_network(f"{saved(tmp_path, given=['N', 'C', 8, 8])}:layout=nchw")


def test_batches_do_not_change_what_is_seen_nor_its_order(tmp_path: Path) -> None:
    network = open_network(saved(tmp_path), device="cpu", threads=1)
    images = pictures(600)
    alone = np.concatenate([network.see(images[i : i + 1]).features for i in range(0, 600, 37)])
    assert np.array_equal(network.see(images).features[::37], alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (":rnage=0,1", "option 'rnage' of .* is unknown\nThere are: range, mean, std, size, layout, features, logits"),
        (":size=8:size=8", "option 'size' of .* is given twice"),
        (":range=0", "option range='0'\nExpected two numbers, what black and white become: range=-1,1"),
        (":range=1,1", "option range='1,1'"),
        (":range=0,nan", "option range='0,nan'"),
        (":std=0", "option std='0'\nExpected .* none of them 0"),
        (":mean=1,2", "option mean='1,2'"),
        (":mean=a", "option mean='a'"),
        (":size=0", "option size='0'\nExpected a side or HEIGHTxWIDTH of 1 to 4096"),
        (":size=9x9x9", "option size='9x9x9'"),
        (":layout=chw", "option layout='chw'\nExpected nchw or nhwc"),
        (":features=", "option features=''\nExpected the name of an output"),
        (":size=9", r"takes images of float32 \[N, 3, 8, 8\], no others\nLeave the option size out"),
    ],
)
def test_options_that_cannot_be_meant(options: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        open_network(f"{saved(tmp_path)}{options}", device="cpu")


def test_options_of_floats_do_not_apply_to_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path, dtype=TensorProto.UINT8)
    with pytest.raises(UsageError, match="takes pixels as they are, uint8\nThe options range, mean and std"):
        open_network(f"{path}:range=0,1")
    path = saved(tmp_path, given=["N", 1, 8, 8], made=["N", 1])
    with pytest.raises(UsageError, match="takes 1 channel"):
        open_network(f"{path}:{IMAGENET}")


def test_outputs_named_features_and_logits_are_taken(tmp_path: Path) -> None:
    seen = open_network(saved(tmp_path, outputs=("other", "logits", "features"))).see(pictures(2))
    assert seen.logits is not None
    network = open_network(saved(tmp_path, outputs=("logits",)))
    assert "The features are the logits" in network.about["note"]
    seen = network.see(pictures(2))
    assert seen.logits is not None and np.array_equal(seen.features, seen.logits)
    assert open_network(saved(tmp_path, outputs=("dense/Relu:0",))).about["features"] == "dense/Relu:0"
    assert open_network(f"{saved(tmp_path, outputs=('a:0', 'b:0'))}:features=b:0").about["features"] == "b:0"


@pytest.mark.parametrize(
    "images",
    [pictures(2)[0], pictures(2).astype(np.float32), pictures(2)[:0], pictures(2)[..., :2], pictures(2)[:, :0]],
)
def test_what_are_no_images_is_refused(images: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Expected uint8 \[N, H, W, C\]"):
        open_network(saved(tmp_path)).see(images)


def test_what_converters_leave_in_files_does_no_harm(tmp_path: Path) -> None:
    """Imports of operators that no node uses (tf2onnx), weights among the inputs (before IR version 4), old opsets."""
    model = proto(opset=13)
    model.graph.ClearField("initializer")
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            del node.input[1]
            node.attribute.append(helper.make_attribute("axes", [2, 3]))
    shift = numpy_helper.from_array(np.zeros(3, np.float32), "shift")
    model.graph.initializer.append(shift)
    model.graph.input.append(helper.make_tensor_value_info("shift", TensorProto.FLOAT, [3]))
    model.graph.node[-1].CopyFrom(helper.make_node("Add", ["mean", "shift"], ["pooled"]))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    model.ir_version = 3
    images = pictures(3)
    assert np.allclose(see(saved(tmp_path, model), images), means(images), atol=1e-6)


# Where it is ---------------------------------------------------------------------------------------------------------


def test_a_network_is_found_by_name_beside_the_generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "features").mkdir()
    shutil.move(saved(tmp_path), tmp_path / "features" / "mine.onnx")
    monkeypatch.setenv("GANRT_MODELS", str(tmp_path))
    assert open_network("mine:range=0,1").name == "mine"
    assert open_network(tmp_path / "features" / "mine.onnx").name == "mine"
    assert "mine" not in {model.name for model in list_models()}
    with pytest.raises(UnknownModel, match=r"no feature network named 'fashon'\nDid you mean fashion\? There are: "):
        open_network("fashon")
    for name in ("gone.onnx", tmp_path / "gone.onnx"):
        with pytest.raises(UnknownModel, match="there is no file .*gone.onnx"):
            open_network(name)
    with pytest.raises(UsageError, match="weights do not apply to 'mine'"):
        open_network("mine", weights=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": "gpu"}, "device 'gpu'"), ({"threads": 0}, "threads 0\nExpected a whole number")],
)
def test_devices_and_threads_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_network("fashion", **options)


def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(tmp_path: Path) -> None:
    try:
        count = len(gpus())
    except GanrtError:
        count = 0
    with pytest.raises(GanrtError, match="NVIDIA|GPU"):
        open_network(saved(tmp_path), device=f"cuda:{count + 1}")
