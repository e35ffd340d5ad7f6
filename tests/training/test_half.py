"""Generators in half precision: from a float graph, from one of the contract, and from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import ganrt
from ganrt import cli
from ganrt.contract import read_model
from ganrt.errors import ParityError
from ganrt_training.again import export_again
from ganrt_training.wrap import export_onnx
from tests.training.test_again import FASHION, generator_with_psi, pixels
from tests.training.test_tune import dcgan, normal

PIXEL_STEP = {"pixels/scale", "pixels/shift", "pixels/black", "pixels/white"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A DCGAN in single and in half precision."""
    folder = tmp_path_factory.mktemp("half")
    (folder / "float.onnx").write_bytes(dcgan().SerializeToString())
    export_onnx(folder / "float.onnx", folder / "single.onnx", value_range=(-1, 1))
    export_onnx(folder / "float.onnx", folder / "half.onnx", value_range=(-1, 1), fp16=True)
    return folder / "single.onnx", folder / "half.onnx"


def kinds(path: Path) -> dict[str, int]:
    """The float type of every weight."""
    tensors = onnx.load(path).graph.initializer
    return {t.name: t.data_type for t in tensors if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)}


def test_every_weight_but_those_of_the_pixel_step_is_halved(both: tuple[Path, Path]) -> None:
    single, half = both
    found = kinds(half)
    assert {name for name, kind in found.items() if kind == TensorProto.FLOAT} == PIXEL_STEP
    assert set(kinds(single).values()) == {TensorProto.FLOAT} and len(found) == len(kinds(single))
    weights = [sum(t.ByteSize() for t in onnx.load(path).graph.initializer) for path in both]
    assert weights[1] < 0.55 * weights[0]


def test_inputs_and_images_stay_as_the_contract_says(both: tuple[Path, Path]) -> None:
    graphs = [onnx.load(path).graph for path in both]
    assert list(graphs[0].input) == list(graphs[1].input)
    assert list(graphs[0].output) == list(graphs[1].output)
    onnx.checker.check_model(onnx.load(both[1]), full_check=True)
    # The pixel step is single: half precision tells 255 from 254.9, not 127.9 from 127.95.
    [cast] = [node for node in graphs[1].node if list(node.output) == pixel_step(graphs[1])]
    assert (cast.op_type, cast.attribute[0].i) == ("Cast", TensorProto.FLOAT)


def pixel_step(graph: onnx.GraphProto) -> list[str]:
    """The tensor that the pixel step starts from."""
    return [node.input[0] for node in graph.node if node.output[0] == "pixels/mul"]


def test_images_are_at_most_two_levels_from_those_in_single_precision(both: tuple[Path, Path]) -> None:
    z = normal(3, 300, 100)
    apart = np.abs(pixels(both[0], z=z) - pixels(both[1], z=z))
    assert 0 < apart.max() <= 2  # and something was really rounded
    assert apart.mean() < 0.1


def test_the_card_says_what_it_is_and_how_near(both: tuple[Path, Path]) -> None:
    single, half = (read_model(path).card.parity for path in both)
    assert half["precision"] == "float16" and "precision" not in single
    assert (half["uint8_atol"], half["uint8_beyond_share"], "float_atol" in half) == (2, 0, False)
    assert half["uint8_max"] <= 2 and half["float_max"] > 1e-4
    assert single["uint8_atol"] == 1


def test_the_shipped_generator_has_a_half_that_draws_the_same_pictures(tmp_path: Path) -> None:
    export_again(FASHION, tmp_path / "fashion.fp16.onnx", fp16=True)
    assert (tmp_path / "fashion.fp16.onnx").stat().st_size < 0.55 * FASHION.stat().st_size
    samples = [ganrt.load(path, device="cpu").sample(100) for path in (FASHION, tmp_path / "fashion.fp16.onnx")]
    assert np.abs(samples[0].astype(int) - samples[1]).max() <= 2
    report = ganrt.generate(tmp_path / "fashion.fp16.onnx", n=20, out=tmp_path / "out", device="cpu")
    assert report.complete and report.model == "fashion"


@pytest.mark.parametrize("on_map", [False, True])
def test_psi_stays_a_single_precision_input_with_a_default(tmp_path: Path, on_map: bool) -> None:
    first = generator_with_psi(tmp_path / "first.onnx", on_map)
    assert export_again(first, tmp_path / "half.onnx", fp16=True).psi
    feeds: dict[str, NDArray[Any]] = {"z": normal(2, 30, 8)}
    for psi in ({}, {"psi": np.array(0.4, np.float32)}):
        assert np.abs(pixels(tmp_path / "half.onnx", **(feeds | psi)) - pixels(first, **(feeds | psi))).max() <= 2


def test_a_half_exported_again_stays_one(both: tuple[Path, Path], tmp_path: Path) -> None:
    for fp16 in (False, True):
        export_again(both[1], tmp_path / f"{fp16}.onnx", fp16=fp16)
        assert TensorProto.FLOAT16 in kinds(tmp_path / f"{fp16}.onnx").values()
        z = normal(3, 20, 100)
        assert np.abs(pixels(tmp_path / f"{fp16}.onnx", z=z) - pixels(both[1], z=z)).max() <= 1


@pytest.mark.parametrize("exponent", [4, 5])
def test_weights_beyond_the_range_of_half_precision_are_refused(tmp_path: Path, exponent: int) -> None:
    """10^4 fits into half precision (up to 65,504), 10^5 does not."""
    great = np.float32(10**exponent)
    weights = {
        "w": normal(1, 8, 48) * np.float32(0.3),
        "great": great,
        "small": 1 / great,
        "map": np.array([-1, 3, 4, 4]),
    }
    nodes = [
        helper.make_node("MatMul", ["z", "w"], ["a"]),
        helper.make_node("Mul", ["a", "small"], ["b"]),
        helper.make_node("Mul", ["b", "great"], ["c"]),
        helper.make_node("Tanh", ["c"], ["d"]),
        helper.make_node("Reshape", ["d", "map"], ["raw"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "float.onnx").write_bytes(model.SerializeToString())
    if exponent == 4:
        export_onnx(tmp_path / "float.onnx", tmp_path / "half.onnx", value_range=(-1, 1), fp16=True)
        return
    with pytest.raises(ParityError, match="images at batch 1, .* 24 apart"):
        export_onnx(tmp_path / "float.onnx", tmp_path / "half.onnx", value_range=(-1, 1), fp16=True)
    assert not (tmp_path / "half.onnx").exists()


def test_the_command_takes_a_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], both: tuple[Path, Path]
) -> None:
    (tmp_path / "float.onnx").write_bytes(dcgan().SerializeToString())
    for source, more in ((both[0], []), (tmp_path / "float.onnx", ["--range=-1,1"])):
        out = tmp_path / f"{source.stem}.fp16.onnx"
        arguments = ["export", str(source), "--precision", "fp16", "--out", str(out), *more]
        monkeypatch.setattr(sys, "argv", ["ganrt", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code, said.err) == (0, "")
        assert '"precision": "float16"' in said.out
        assert TensorProto.FLOAT16 in kinds(out).values()
