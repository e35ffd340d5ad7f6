"""Generators of the contract exported again, from Python and from the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ganrt import cli
from ganrt.card import METADATA_KEY, Card
from ganrt.contract import check_model, read_model
from ganrt.errors import ContractError, GanrtError, ParityError, TrainingError, UnknownModel, UsageError
from ganrt_training import assemble
from ganrt_training.again import export_again, is_generator
from ganrt_training.assemble import append_pixels, set_inputs
from ganrt_training.wrap import export_onnx
from tests.models import float_nchw_proto, tiny_card, tiny_model
from tests.training.test_tune import dcgan, graph_of, normal, run

FASHION = Path(__file__).resolve().parents[2] / "exported" / "fashion.onnx"
Z = normal(11, 40, 100)


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def without_card(path: Path) -> bytes:
    model = onnx.load(path)
    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY]
    del model.metadata_props[:]
    return bytes(model.SerializeToString(deterministic=True))


def pixels(path: Path, **feeds: NDArray[Any]) -> NDArray[Any]:
    [images] = run(onnx.load(path), feeds)
    assert images.dtype == np.uint8
    assert images.std() > 1  # equal greys would prove nothing
    return images.astype(int)


def changed(path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """A copy of a generator with something else in it."""
    model = onnx.load(path)
    change(model)
    target = path.with_name("changed.onnx")
    target.write_bytes(model.SerializeToString())
    return target


def with_card(model: onnx.ModelProto, card: Card) -> None:
    helper.set_model_props(model, {METADATA_KEY: card.to_json()})


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator as ganrt wrote it before it rewrote graphs, with every field of its card filled in."""
    folder = tmp_path_factory.mktemp("older")
    (folder / "float.onnx").write_bytes(dcgan().SerializeToString())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "tune", lambda *_, **__: None)
        export_onnx(folder / "float.onnx", folder / "older.onnx", value_range=(-1, 1), z_distribution="uniform")
    model = onnx.load(folder / "older.onnx")
    card = dataclasses.replace(
        check_model(model.SerializeToString(), ""),
        name="Ölbild",
        description="made long ago",
        data="none",
        data_licence="CC0-1.0",
        licence="MIT",
        recipe="dcgan",
        kimg=12.5,
        quality={"fid": {"value": 3.5, "of": [1, 2]}},
        parity={"float_max": 0.5, "gone": True},
        exporter={"ganrt": "0.0.1"},
    )
    with_card(model, card)
    (folder / "older.onnx").write_bytes(model.SerializeToString())
    return folder / "older.onnx"


@pytest.fixture(scope="module")
def newer(older: Path) -> Path:
    """The same exported again. Not to be changed."""
    export_again(older, older.with_name("newer.onnx"))
    return older.with_name("newer.onnx")


# What becomes of the file -------------------------------------------------------------------------------------------


def test_an_older_generator_is_rewritten_and_makes_the_same_pixels(older: Path, newer: Path) -> None:
    assert operators(older).count("ConvTranspose") == 3
    assert operators(newer).count("ConvTranspose") == 2
    assert operators(older).count("Mul") == 3
    assert operators(newer).count("Mul") == 1  # that of the pixel step
    assert "Gemm" in operators(newer)
    assert np.abs(pixels(older, z=Z) - pixels(newer, z=Z)).max() <= 1
    assert np.mean(pixels(older, z=Z) != pixels(newer, z=Z)) < 0.001


def test_the_card_stays_but_for_parity_and_exporter(older: Path, newer: Path) -> None:
    before, after = read_model(older).card, read_model(newer).card
    kept = [field.name for field in dataclasses.fields(Card) if field.name not in ("parity", "exporter")]
    assert {name: getattr(after, name) for name in kept} == {name: getattr(before, name) for name in kept}
    assert before.exporter == {"ganrt": "0.0.1"}
    assert {"ganrt", "onnx"} <= after.exporter.keys()
    assert after.exporter["ganrt"] != "0.0.1"


def test_parity_is_measured_anew_and_names_the_file_given(older: Path, newer: Path) -> None:
    parity = read_model(newer).card.parity
    assert parity["against"] == digest(older)
    assert "gone" not in parity
    assert parity["float_max"] < 1e-4
    assert parity["float_atol"] == 1e-4
    assert (parity["uint8_max"] <= 1, parity["latents"]) == (True, 256)


def test_the_card_returned_is_the_one_written_and_the_name_may_change(older: Path, tmp_path: Path) -> None:
    card = export_again(older, tmp_path / "x.onnx", name="Aquarell")
    assert card == read_model(tmp_path / "x.onnx").card
    assert card.name == "Aquarell"
    assert card.description == "made long ago"


def test_the_name_is_not_that_of_the_new_file(newer: Path) -> None:
    assert read_model(newer).card.name == "Ölbild"


def test_exporting_the_result_again_gives_the_same_graph(newer: Path, tmp_path: Path) -> None:
    card = export_again(newer, tmp_path / "third.onnx")
    assert without_card(tmp_path / "third.onnx") == without_card(newer)
    np.testing.assert_array_equal(pixels(tmp_path / "third.onnx", z=Z), pixels(newer, z=Z))
    assert card.parity["against"] == digest(newer)
    assert (card.parity["uint8_max"], card.parity["uint8_unequal_share"]) == (0, 0)


def test_the_same_file_gives_the_same_bytes(older: Path, newer: Path, tmp_path: Path) -> None:
    export_again(older, tmp_path / "x.onnx")
    assert (tmp_path / "x.onnx").read_bytes() == newer.read_bytes()


def test_the_shipped_generator_is_as_this_version_writes_it(tmp_path: Path) -> None:
    card = export_again(FASHION, tmp_path / "fashion.onnx")
    assert without_card(tmp_path / "fashion.onnx") == without_card(FASHION)
    feeds: dict[str, NDArray[Any]] = {"z": normal(1, 20, read_model(FASHION).card.z_dim), "y": np.arange(20) % 10}
    np.testing.assert_array_equal(pixels(tmp_path / "fashion.onnx", **feeds), pixels(FASHION, **feeds))
    shipped = read_model(FASHION).card
    assert dataclasses.replace(card, parity={}, exporter={}) == dataclasses.replace(shipped, parity={}, exporter={})
    assert card.parity["against"] == digest(FASHION)


@pytest.mark.parametrize(("low", "high", "float_atol"), [(0, 255, 0.013), (0, 1, 5e-5)])
def test_a_generator_of_another_range_is_held_to_its_own_limit(
    tmp_path: Path, low: int, high: int, float_atol: float
) -> None:
    source = dcgan()
    source.graph.node[-1].output[0] = "signed"
    for name, operator, x, y in (("half", "Mul", "signed", "scaled"), ("middle", "Add", "scaled", "image")):
        source.graph.node.append(helper.make_node(operator, [x, name], [y]))
        value = {"half": (high - low) / 2, "middle": (high + low) / 2}[name]
        source.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    (tmp_path / "float.onnx").write_bytes(source.SerializeToString())
    export_onnx(tmp_path / "float.onnx", tmp_path / "first.onnx", value_range=(low, high))
    card = export_again(tmp_path / "first.onnx", tmp_path / "second.onnx")
    assert card.parity["float_atol"] == float_atol
    np.testing.assert_array_equal(pixels(tmp_path / "second.onnx", z=Z), pixels(tmp_path / "first.onnx", z=Z))


def test_a_generator_that_ends_with_its_convolution_keeps_its_pixel_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dcgan()
    del source.graph.node[-1]
    source.graph.node[-1].output[0] = "image"
    (tmp_path / "float.onnx").write_bytes(source.SerializeToString())
    with monkeypatch.context() as patch:
        patch.setattr(assemble, "tune", lambda *_, **__: None)
        export_onnx(tmp_path / "float.onnx", tmp_path / "first.onnx", value_range=(-1, 1))
    export_again(tmp_path / "first.onnx", tmp_path / "second.onnx")
    export_again(tmp_path / "second.onnx", tmp_path / "third.onnx")
    assert np.abs(pixels(tmp_path / "third.onnx", z=Z) - pixels(tmp_path / "first.onnx", z=Z)).max() <= 1


def generator_with_psi(path: Path, on_map: bool) -> Path:
    """z [N, 8] → images [N, 4, 4, 3] with psi on the latents, or on the map that a convolution makes."""
    nodes = [
        helper.make_node("Mul", ["x", "psi"], ["truncated"]),
        helper.make_node("Reshape", ["x" if on_map else "truncated", "square"], ["r"]),
        helper.make_node("ConvTranspose", ["r", "w"], ["c"]),
        helper.make_node("Mul", ["c", "psi"], ["d"]),
        helper.make_node("Tanh", ["d" if on_map else "c"], ["raw"]),
    ]
    nodes = [node for node in nodes if node.output[0] != ("truncated" if on_map else "d")]
    one, square = np.array(1, np.float32), np.array([-1, 8, 1, 1])
    weights = {"w": normal(1, 8, 3, 4, 4) * np.float32(0.3), "square": square, "psi": one}
    model = graph_of(nodes, weights, (1, 8), ["raw"], fed={"psi": one})
    psi = model.graph.input[1]
    for node in nodes:
        node.input[:] = ["z" if name == "x" else name for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    append_pixels(model, size=(4, 4, 3), value_range=(-1, 1), nchw=True)
    psi = onnx.ValueInfoProto.FromString(psi.SerializeToString())
    set_inputs(model, 8, classes=False)
    model.graph.input.append(psi)
    with_card(model, tiny_card(class_names=(), width=4, height=4, psi=True))
    path.write_bytes(model.SerializeToString())
    read_model(path)
    return path


@pytest.mark.parametrize("on_map", [False, True], ids=["on the latents", "on a map"])
def test_psi_stays_an_input_with_a_default(tmp_path: Path, on_map: bool) -> None:
    first = generator_with_psi(tmp_path / "first.onnx", on_map)
    assert export_again(first, tmp_path / "second.onnx").psi
    feeds: dict[str, NDArray[Any]] = {"z": normal(2, 30, 8)}
    for psi in ({}, {"psi": np.array(0.4, np.float32)}):
        images = pixels(tmp_path / "second.onnx", **(feeds | psi))
        assert np.abs(images - pixels(first, **(feeds | psi))).max() <= 1
    assert np.abs(images - pixels(first, **feeds)).max() > 20


# What is refused ----------------------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_kept_unless_told(older: Path, newer: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    out.write_bytes(b"precious")
    with pytest.raises(UsageError, match="is there already\nPass --overwrite"):
        export_again(older, out)
    assert out.read_bytes() == b"precious"
    export_again(older, out, overwrite=True)
    assert out.read_bytes() == newer.read_bytes()


def test_a_generator_may_take_its_own_place_when_told(older: Path, newer: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    own.write_bytes(older.read_bytes())
    with pytest.raises(UsageError, match="is there already"):
        export_again(own, own)
    assert own.read_bytes() == older.read_bytes()
    export_again(own, own, overwrite=True)
    assert own.read_bytes() == newer.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["own.onnx"]


@pytest.mark.parametrize(("out", "message"), [("x.png", "not a name for a generator"), ("folder.onnx", "is a folder")])
def test_a_target_that_is_no_generator_is_refused(older: Path, tmp_path: Path, out: str, message: str) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UsageError, match=message):
        export_again(older, tmp_path / out, overwrite=True)


def test_a_rewrite_that_changes_the_images_is_not_written(
    older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: onnx.ModelProto, *_: Any, **__: Any) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("main.2.weight"))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))

    monkeypatch.setattr(assemble, "tune", spoil)
    (tmp_path / "x.onnx").write_bytes(b"precious")
    with pytest.raises(ParityError, match="from the source.*\nAt most 0.0001 is allowed. Nothing was written."):
        export_again(older, tmp_path / "x.onnx", overwrite=True)
    assert (tmp_path / "x.onnx").read_bytes() == b"precious"


def scale(value: Any, kind: type[np.floating[Any]] = np.float32) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "pixels/scale")
        tensor.CopyFrom(numpy_helper.from_array(np.array(value, kind), tensor.name))

    return change


def renamed(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for tensor in model.graph.initializer:
            tensor.name = new if tensor.name == old else tensor.name

    return change


def without_inputs(model: onnx.ModelProto) -> None:
    del next(node for node in model.graph.node if node.output[0] == "pixels/mul").input[:]


def node_without_outputs(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Relu", ["z"], []))


def float_images(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[3].op_type = "RandomNormalLike"


TAMPERED: dict[str, tuple[Callable[[onnx.ModelProto], None], type[GanrtError]]] = {
    "no Mul of the pixel step": (renamed("pixels/mul", "levels"), TrainingError),
    "no scale": (renamed("pixels/scale", "half"), TrainingError),
    "a Mul of nothing": (without_inputs, GanrtError),
    "a node that makes nothing": (node_without_outputs, GanrtError),
    "scale 0": (scale(0), GanrtError),
    "scale infinite": (scale(np.inf), GanrtError),
    "scale nan": (scale(np.nan), GanrtError),
    "scale by channel": (scale([[[127.5]], [[127.5]], [[127.5]]]), GanrtError),
    "scale in float64": (scale(127.5, np.float64), GanrtError),
    "floats": (float_images, ContractError),
    "operator": (unknown_operator, ContractError),
    "no card": (lambda model: model.ClearField("metadata_props"), ContractError),
    "another size": (lambda model: with_card(model, tiny_card(z_dim=100, class_names=())), ContractError),
}


@pytest.mark.parametrize("case", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_tampered_file_is_told(
    older: Path, tmp_path: Path, case: tuple[Callable[[onnx.ModelProto], None], type[GanrtError]]
) -> None:
    change, kind = case
    source = tmp_path / "older.onnx"
    source.write_bytes(older.read_bytes())
    with pytest.raises(kind) as raised:
        export_again(changed(source, change), tmp_path / "x.onnx")
    assert raised.value.message
    assert not (tmp_path / "x.onnx").exists()


def test_a_negative_scale_does_not_switch_the_proof_off(older: Path, tmp_path: Path) -> None:
    source = tmp_path / "older.onnx"
    source.write_bytes(older.read_bytes())
    try:
        card = export_again(changed(source, scale(-127.5)), tmp_path / "x.onnx")
    except GanrtError:
        return
    assert card.parity["float_atol"] == 1e-4


def test_a_generator_whose_pixel_step_is_someone_elses_is_told(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_model())
    with pytest.raises(TrainingError, match="tiny.onnx: its pixel step was not written by ganrt\nUse the file as it"):
        export_again(tmp_path / "tiny.onnx", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_damaged_and_missing_files_are_told(older: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(older.read_bytes()[:-1000])
    with pytest.raises(ContractError, match="cut.onnx"):
        export_again(tmp_path / "cut.onnx", tmp_path / "x.onnx")
    with pytest.raises(UnknownModel, match="none.onnx"):
        export_again(tmp_path / "none.onnx", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_a_card_tells_generators_from_other_files(older: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_model())
    (tmp_path / "float.onnx").write_bytes(float_nchw_proto().SerializeToString())
    (tmp_path / "nonsense.onnx").write_bytes(b"nonsense")
    (tmp_path / "folder.onnx").mkdir()
    assert is_generator(older)
    assert is_generator(tmp_path / "tiny.onnx")
    for name in ("float", "nonsense", "folder", "none"):
        assert not is_generator(tmp_path / f"{name}.onnx")


# The command --------------------------------------------------------------------------------------------------------

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``ganrt export`` in this process: exit code, stdout, stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ganrt", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return command


def test_the_command_exports_a_generator_again(command: Command, older: Path, newer: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    code, printed, errors = command(older, "--out", out)
    assert (code, errors) == (0, "")
    assert printed.startswith(f"{out}: Ölbild, equal to its source: ")
    assert digest(older) in printed
    assert out.read_bytes() == newer.read_bytes()


def test_the_command_keeps_what_is_there_and_renames(command: Command, newer: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    out.write_bytes(b"precious")
    code, _, errors = command(newer, "--out", out)
    assert (code, "Pass --overwrite" in errors, out.read_bytes()) == (2, True, b"precious")
    assert command(newer, "--out", out, "--overwrite", "--name", "Skizze")[0] == 0
    assert read_model(out).card.name == "Skizze"


@pytest.mark.parametrize("option", ["--range=-1,1", "--classes=a,b", "--layout=nchw", "--card", "--quality"])
def test_what_the_card_says_already_cannot_be_said_again(
    command: Command, newer: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "texts.json").write_text('{"data": "x"}')
    value = [tmp_path / "texts.json"] if option in ("--card", "--quality") else []
    code, _, errors = command(newer, "--out", tmp_path / "x.onnx", option, *value)
    assert code == 2
    named = option.partition("=")[0] if not value else "a text for the card"
    assert f"{named} does not apply: {newer} has a card already" in " ".join(errors.split())
    assert not (tmp_path / "x.onnx").exists()


def test_the_command_tells_someone_elses_pixel_step(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_model())
    code, _, errors = command(tmp_path / "tiny.onnx", "--out", tmp_path / "x.onnx")
    assert (code, "its pixel step was not written by ganrt" in " ".join(errors.split())) == (1, True)
