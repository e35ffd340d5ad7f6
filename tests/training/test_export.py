from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ganrt.contract import check_model
from ganrt.errors import ParityError, StorageError, TrainingError, UsageError
from ganrt_training.assemble import CardTexts, append_pixels, write_generator
from ganrt_training.checkpoint import load_generator, load_snapshot, save_snapshot
from ganrt_training.export import export_run, to_onnx, torch_source
from ganrt_training.fold import fold_norms
from ganrt_training.layers import ConditionalBatchNorm2d
from ganrt_training.parity import Floats, Pixels, Styles, prove
from ganrt_training.parity_w import prove_w
from tests.models import tiny_card, tiny_model
from tests.training.tiny import SNAPSHOT

TEXTS = CardTexts(description="Bands.", data="noise", data_licence="CC0-1.0", licence="MIT", quality={"n": 3})


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "bands.onnx"
    export_run(finished_run, out, texts=TEXTS)
    return out


def model_of(path: Path) -> onnx.ModelProto:
    return onnx.load_model_from_string(path.read_bytes())


# The file ------------------------------------------------------------------------------------------------------------


def test_the_file_follows_the_contract_and_the_card_says_what_it_is(finished_run: Path, exported: Path) -> None:
    onnx.checker.check_model(model_of(exported), full_check=True)
    card = check_model(exported.read_bytes(), str(exported))
    assert (card.name, card.z_dim, card.width, card.height, card.channels) == ("bands", 4, 28, 28, 1)
    assert (card.class_names, card.psi) == (("band 0", "band 1", "band 2"), False)
    assert (card.recipe, card.kimg) == ("cgan_projection_28", 0.64)
    assert card.snapshot_digest == load_generator(finished_run / SNAPSHOT).digest
    assert (card.description, card.data, card.data_licence, card.licence) == ("Bands.", "noise", "CC0-1.0", "MIT")
    assert card.quality == {"n": 3}
    assert {"torch", "onnx", "onnxscript"} <= card.exporter.keys()


def test_the_card_holds_the_figures_of_the_proof(exported: Path) -> None:
    parity = check_model(exported.read_bytes(), str(exported)).parity
    assert parity["batches"] == [1, 2, 3, 64, 65]
    assert (parity["latents"], parity["classes"]) == (256, 3)
    assert max(parity["float_max"], parity["alone_float_max"]) <= 1e-4
    assert {parity["uint8_max"], parity["alone_uint8_max"]} <= {0, 1}
    assert 0 <= parity["uint8_unequal_share"] < 0.01


def test_the_graph_is_clean(exported: Path) -> None:
    model = model_of(exported)
    operators = Counter(node.op_type for node in model.graph.node)
    expected = set(["Gemm", "LeakyRelu", "Concat", "Reshape", "Gather", "Mul", "Add", "Relu", "ConvTranspose", "Tanh"])
    assert operators.keys() == expected | {"Clip", "Transpose", "Cast"}
    assert operators["Gemm"] == 2  # dense layers, in one operator each
    assert model.graph.node[-1].op_type == "Cast"
    assert operators["Gather"] == 7  # the embedding, a scale and a shift for each of three norms
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert (model.producer_name, len(model.functions), len(model.metadata_props)) == ("ganrt", 0, 1)
    assert {tensor.data_type for tensor in model.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


def test_the_bytes_are_the_same_each_time_and_tell_nothing_of_the_machine(
    finished_run: Path, exported: Path, tmp_path: Path
) -> None:
    export_run(finished_run / SNAPSHOT, tmp_path / "bands.onnx", texts=TEXTS)
    data = exported.read_bytes()
    assert (tmp_path / "bands.onnx").read_bytes() == data
    for trace in (str(Path.home()), str(Path.cwd()), str(finished_run), "site-packages", "torch/nn", ".py"):
        assert trace.encode() not in data, trace
    for node in model_of(exported).graph.node:
        assert (node.doc_string, list(node.metadata_props)) == ("", [])


def test_the_images_are_the_snapshots_for_any_number_of_latents(finished_run: Path, exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    generator = load_generator(finished_run / SNAPSHOT).generator
    for count in (1, 7):
        z, y = torch.randn(count, 4), torch.arange(count) % 3
        images = session.run(["images"], {"z": z.numpy(), "y": y.numpy()})[0]
        assert (images.dtype, images.shape) == (np.uint8, (count, 28, 28, 1))
        with torch.no_grad():
            expected = (generator(z, y) * 127.5 + 128).clamp(0, 255).permute(0, 2, 3, 1)
        assert np.abs(images - expected.numpy()).max() <= 1.01


@pytest.mark.parametrize(
    ("value_range", "values", "levels"),
    [
        ((-1, 1), [-1, -1.5, 0, 1, 1.5, 0.999], [0, 0, 128, 255, 255, 255]),
        ((0, 1), [0, -1, 0.5, 1, 2, 0.002], [0, 0, 128, 255, 255, 1]),
        ((0, 255), [0, 0.4, 0.6, 254.4, 255, 300], [0, 0, 1, 254, 255, 255]),
    ],
)
def test_the_pixel_step_maps_a_range_onto_all_levels(
    value_range: tuple[float, float], values: list[float], levels: list[int]
) -> None:
    one = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 1, 1, 1])
    raw = onnx.helper.make_tensor_value_info("raw", onnx.TensorProto.FLOAT, ["N", 1, 1, 1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["z"], ["raw"])], "g", [one], [raw])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    assert append_pixels(model, size=(1, 1, 1), value_range=value_range, nchw=True) == "raw"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    z = np.array(values, np.float32).reshape(-1, 1, 1, 1)
    assert session.run(None, {"z": z})[0].ravel().tolist() == levels


# Folding -------------------------------------------------------------------------------------------------------------


class _Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conditional = ConditionalBatchNorm2d(5, 3)
        self.rest = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(5), nn.BatchNorm2d(5, affine=False, eps=0.1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.rest(self.conditional(x, y))  # type: ignore[no-any-return]


def test_folded_norms_act_as_the_norms_did() -> None:
    torch.manual_seed(0)
    network = _Norms()
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x, y = 3 + 2 * torch.randn(30, 5, 4, 4), torch.arange(30) % 3
    for _ in range(5):
        network(x, y)
    folded = fold_norms(network)
    assert not [m for m in folded.modules() if isinstance(m, (nn.BatchNorm2d, ConditionalBatchNorm2d))]
    assert [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(folded(x, y), network.eval()(x, y), rtol=1e-5, atol=1e-5)


# The proof -----------------------------------------------------------------------------------------------------------


def numpy_source(seed: int = 0) -> Callable[..., tuple[Floats, Pixels]]:
    """tests.models' tiny generator in numpy."""
    weights = {
        t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(tiny_model(seed=seed)).graph.initializer
    }

    def source(z: Floats, y: Any, psi: float | None) -> tuple[Floats, Pixels]:
        x = np.tanh((z + weights["table"][y]) @ weights["weight"] + weights["bias"]).reshape(-1, 8, 8, 3)
        return x, np.clip(x * np.float32(127.5) + np.float32(128), 0, 255).astype(np.uint8)

    return source


def tampered(name: str, place: tuple[int, ...], by: float) -> bytes:
    model = onnx.load_model_from_string(tiny_model())
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[place] += by
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return bytes(model.SerializeToString())


def test_any_source_can_be_held_against_a_file() -> None:
    figures = prove(numpy_source(), tiny_model(), tiny_card(), raw="signed")
    assert figures["float_max"] < 1e-5
    assert figures["uint8_max"] <= 1


def test_a_file_with_other_weights_is_refused_with_its_worst_pixel() -> None:
    # Class 1 alone is wrong: only a proof with all labels sees it.
    with pytest.raises(ParityError) as raised:
        prove(numpy_source(), tampered("table", (1, 0), 0.5), tiny_card(), raw="signed")
    for part in ("at batch ", ", label 1, position [", "in ONNX Runtime", "from the source"):
        assert part in raised.value.message
    assert "At most 0.0001 is allowed. Nothing was written." in str(raised.value)
    index = int(raised.value.message.split("index ")[1].split(",")[0])
    assert index % 3 == 1


def test_what_the_pixel_step_hides_is_seen_before_it() -> None:
    source = numpy_source()

    def off(z: Floats, y: Any, psi: float | None) -> tuple[Floats, Pixels]:
        floats, pixels = source(z, y, psi)
        return floats + np.float32(2e-4), pixels

    with pytest.raises(ParityError, match=r"^signed at batch"):
        prove(off, tiny_model(), tiny_card(), raw="signed")
    assert prove(off, tiny_model(), tiny_card(), raw="signed", half_range=2.5)["float_atol"] == 2.5e-4


def test_a_pixel_two_levels_off_is_refused() -> None:
    source = numpy_source()

    def off(z: Floats, y: Any, psi: float | None) -> tuple[Floats, Pixels]:
        floats, pixels = source(z, y, psi)
        return floats, np.where(pixels < 100, pixels + 2, pixels)

    with pytest.raises(ParityError, match=r"^images at batch .* 2 apart\nAt most 1 is allowed"):
        prove(off, tiny_model(), tiny_card(), raw="signed")


def test_rows_that_depend_on_their_batch_are_refused() -> None:
    model = onnx.load_model_from_string(tiny_model())
    mean = onnx.helper.make_node("ReduceMean", ["z", "axes"], ["mean"], keepdims=1)
    centred = onnx.helper.make_node("Sub", ["z", "mean"], ["centred"])
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
    for node in model.graph.node:
        node.input[:] = ["centred" if name == "z" else name for name in node.input]
    for node in (centred, mean):
        model.graph.node.insert(0, node)
    source = numpy_source()

    def same(z: Floats, y: Any, psi: float | None) -> tuple[Floats, Pixels]:
        return source(z - z.mean(0), y, psi)

    with pytest.raises(ParityError, match="from the row alone"):
        prove(same, model.SerializeToString(), tiny_card(), raw="signed")


def test_numbers_that_are_not_finite_are_refused() -> None:
    source = numpy_source()

    def broken(z: Floats, y: Any, psi: float | None) -> tuple[Floats, Pixels]:
        floats, pixels = source(z, y, psi)
        floats[y == 2] = np.nan
        return floats, pixels

    with pytest.raises(ParityError, match="source makes numbers that are not finite: at batch 1, row 0, label 2"):
        prove(broken, tiny_model(), tiny_card(), raw="signed")


def test_a_file_that_does_not_run_and_a_card_of_another_size_are_refused() -> None:
    with pytest.raises(ParityError, match="ONNX Runtime fails at batch"):
        prove(numpy_source(), tiny_model(table_rows=2), tiny_card(), raw="signed")
    with pytest.raises(ParityError, match=r"images are \[8, 8, 3\] in ONNX Runtime.* and \[9, 8, 3\] on the card"):
        prove(numpy_source(), tiny_model(), tiny_card(height=9), raw="signed")
    with pytest.raises(ParityError, match="ONNX Runtime does not load the export"):
        prove(numpy_source(), tiny_model(), tiny_card(), raw="nowhere")


def test_psi_is_proven_at_a_half_and_one() -> None:
    source, seen = numpy_source(), set()

    def with_psi(z: Floats, y: Any, psi: float | None) -> tuple[Floats, Pixels]:
        seen.add(psi)
        return source(z * np.float32(psi), y, None)

    assert prove(with_psi, tiny_model(psi=True), tiny_card(psi=True), raw="signed")["uint8_max"] <= 1
    assert seen == {0.5, 1.0}


def numpy_styles() -> Styles:
    """The mapping and synthesis of tests.models' tiny generator with w, in numpy."""
    model = onnx.load_model_from_string(tiny_model(num_ws=3, w_dim=5, psi=True))
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    def mapping(z: Any, y: Any, psi: float | None) -> Floats:
        w: Floats = (z * np.float32(psi) + weights["table"][y]) @ weights["mapping"]
        return np.repeat(w[:, None], 3, axis=1)

    def synthesis(w: Floats) -> tuple[Floats, Pixels]:
        x = np.tanh(w.reshape(len(w), -1) @ weights["weight"] + weights["bias"]).reshape(-1, 8, 8, 3)
        return x, np.clip(x * np.float32(127.5) + np.float32(128), 0, 255).astype(np.uint8)

    return Styles(mapping, synthesis)


STYLES: dict[str, Any] = {"num_ws": 3, "w_dim": 5, "psi": True}


def test_w_is_proven_where_there_is_one() -> None:
    figures = prove_w(numpy_styles(), tiny_model(**STYLES), tiny_card(**STYLES), raw="signed")
    assert figures["w_max"] <= 1e-5
    assert figures["fed_back_uint8_max"] == 0
    assert figures["mixed_float_max"] <= 1e-5
    assert figures["mixed_uint8_max"] <= 1


def test_a_file_that_mixes_up_its_layers_is_refused() -> None:
    # Every layer takes the first one's w: images of z, and of w fed back, are right all the same.
    model = onnx.load_model_from_string(tiny_model(**STYLES))
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0]), "firsts"))
    at = next(k for k, node in enumerate(graph.node) if node.op_type == "Where")
    graph.node.insert(at + 1, onnx.helper.make_node("Gather", ["styles", "firsts"], ["one"], axis=1))
    graph.node[at + 2].input[0] = "one"
    with pytest.raises(ParityError, match=r"of mixed w at batch .* from the source"):
        prove_w(numpy_styles(), model.SerializeToString(), tiny_card(**STYLES), raw="signed")


def test_a_mapping_of_its_own_is_refused() -> None:
    def off(z: Any, y: Any, psi: float | None) -> Floats:
        return numpy_styles().mapping(z, y, psi) + np.float32(2e-4 if psi == 0.5 else 0)

    styles = Styles(off, numpy_styles().synthesis)
    with pytest.raises(ParityError, match=r"w_mapped at batch \d+, psi 0.5, .*\nAt most 0.0001 is allowed"):
        prove_w(styles, tiny_model(**STYLES), tiny_card(**STYLES), raw="signed")


def test_a_w_that_is_fed_and_not_taken_is_refused() -> None:
    model = onnx.load_model_from_string(tiny_model(**STYLES))
    node = next(node for node in model.graph.node if node.op_type == "Where")
    node.input[1] = "w_mapped"
    with pytest.raises(ParityError, match="images of w fed back at batch|of mixed w at batch"):
        prove_w(numpy_styles(), model.SerializeToString(), tiny_card(**STYLES), raw="signed")


# Failing -------------------------------------------------------------------------------------------------------------


def test_nothing_is_written_when_the_proof_fails(finished_run: Path, tmp_path: Path) -> None:
    trained = load_generator(finished_run / SNAPSHOT)
    card = tiny_card(name="bands", class_names=trained.class_names, z_dim=4, width=28, height=28, channels=1)
    folded = fold_norms(trained.generator)
    next(buffer for name, buffer in folded.named_buffers() if name == "norm1.shift")[1] += 1
    model = to_onnx(folded, card)
    raw = append_pixels(model, size=(28, 28, 1), value_range=(-1, 1), nchw=True)
    with pytest.raises(ParityError, match="label 1"):
        write_generator(model, card, torch_source(trained.generator), tmp_path / "bands.onnx", raw=raw)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_kept_unless_told(finished_run: Path, exported: Path, tmp_path: Path) -> None:
    out = Path(shutil.copy(exported, tmp_path / "bands.onnx"))
    with pytest.raises(UsageError, match=r"bands.onnx: is there already\nPass --overwrite"):
        export_run(finished_run, out)
    assert out.read_bytes() == exported.read_bytes()
    card = export_run(finished_run, out, name="Streifen", overwrite=True)[out]
    assert card.name == "Streifen" == check_model(out.read_bytes(), "").name


@pytest.mark.parametrize(("out", "message"), [("bands", "ends in .onnx"), ("folder.onnx", "is a folder")])
def test_a_target_that_cannot_be_meant_is_refused(finished_run: Path, tmp_path: Path, out: str, message: str) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UsageError, match=message):
        export_run(finished_run, tmp_path / out)


def test_a_folder_that_is_not_there_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder .*no\nMake it, or name another"):
        export_run(Path("nowhere"), tmp_path / "no" / "x.onnx")


def test_a_file_that_cannot_be_written_is_told(finished_run: Path, exported: Path, tmp_path: Path) -> None:
    card = check_model(exported.read_bytes(), "")
    trained = load_generator(finished_run / SNAPSHOT)
    with pytest.raises(StorageError, match="cannot be written: No such file or directory\nName a folder"):
        out = tmp_path / "no" / "x.onnx"
        write_generator(model_of(exported), card, torch_source(trained.generator), out, raw="raw_images")


def test_a_card_that_cannot_be_shown_is_refused(finished_run: Path, exported: Path, tmp_path: Path) -> None:
    trained = load_generator(finished_run / SNAPSHOT)
    card = dataclasses.replace(check_model(exported.read_bytes(), ""), description="\x1b[2J")
    with pytest.raises(TrainingError, match=r"the export of bands: .*characters that cannot be printed"):
        out = tmp_path / "x.onnx"
        write_generator(model_of(exported), card, torch_source(trained.generator), out, raw="raw_images")
    assert not list(tmp_path.iterdir())


def test_a_card_that_is_no_json_is_refused(finished_run: Path, tmp_path: Path) -> None:
    for value in (float("nan"), Path("x")):
        with pytest.raises(TrainingError, match="the card of x cannot be written as JSON"):
            export_run(finished_run, tmp_path / "x.onnx", texts=CardTexts(quality={"share": value}))


def test_quality_of_another_snapshot_is_refused(finished_run: Path, tmp_path: Path) -> None:
    texts = CardTexts(quality={"snapshot_digest": "sha256:00"})
    with pytest.raises(TrainingError, match=r"measured on a generator of snapshot sha256:00.*\nMeasure it again"):
        export_run(finished_run, tmp_path / "x.onnx", texts=texts)


def test_card_texts_come_from_json_files(tmp_path: Path) -> None:
    texts, quality = tmp_path / "card.json", tmp_path / "quality.json"
    texts.write_text('{"licence": "MIT", "data": "d"}')
    quality.write_text('{"fidelity": 0.9}')
    assert CardTexts.read(texts, quality) == CardTexts(licence="MIT", data="d", quality={"fidelity": 0.9})
    assert CardTexts.read() == CardTexts()
    for text, message in (
        ("{", "card.json: cannot be read as JSON"),
        ("[]", "card.json: list, not an object"),
        (
            '{"license": "MIT"}',
            "card.json: license is 'MIT'\nExpected texts for: description, data, data_licence, licence",
        ),
        ('{"data": 3}', "data is 3"),
        ('{"data": NaN}', "card.json: cannot be read as JSON: NaN is no number"),
    ):
        texts.write_text(text)
        with pytest.raises(TrainingError) as raised:
            CardTexts.read(texts)
        assert message in str(raised.value)
    with pytest.raises(TrainingError, match=r"none.json: cannot be read"):
        CardTexts.read(tmp_path / "none.json")


# Snapshots that nobody vouches for -----------------------------------------------------------------------------------


def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[Any, dict[str, Any]], None]:
    return lambda weights, about: change(about)


BAD_SNAPSHOTS: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, Any]], object], str]] = {
    "missing": (lambda w, a: w.pop("dense.bias"), "generator: dense.bias is missing"),
    "unexpected": (lambda w, a: w.update(more=torch.zeros(1)), "generator: more is not one of them"),
    "mis-shaped": (
        lambda w, a: w.update({"dense.bias": torch.zeros(3)}),
        "dense.bias is float32 [3], not float32 [392]",
    ),
    "mis-typed": (
        lambda w, a: w.update({"dense.bias": torch.zeros(392, dtype=torch.float16)}),
        "dense.bias is float16 [392], not float32 [392]",
    ),
    "another width": (lambda w, a: a["recipe"].update(width=16384), "and 12 more"),
    "unknown recipe": (
        lambda w, a: a["recipe"].update(name="stylegan9"),
        "recipe 'stylegan9', which this ganrt lacks\nThere are: biggan_32, ",
    ),
    "no recipe": (lambda w, a: a.pop("recipe"), "does not say how it was trained (KeyError: 'recipe')"),
    "recipe is a list": (lambda w, a: a.update(recipe=[1]), "the run's recipe has no name"),
    "width is a word": (lambda w, a: a["recipe"].update(width="wide"), "has width='wide', which cgan"),
    "width is huge": (lambda w, a: a["recipe"].update(width=10**12), "width is 1000000000000\nExpected a number of 1"),
    "unknown setting": (lambda w, a: a["recipe"].update(depth=3), "has depth='3', which cgan"),
    "betas": (lambda w, a: a["recipe"].update(betas=[1]), "has betas='[1]'"),
    "channels": (lambda w, a: a.update(channels=2), "holds channels 2"),
    "class names": (lambda w, a: a.update(class_names=[1, 2, 3]), "class_names [1, 2, 3]"),
    "kimg": (lambda w, a: a.update(kimg=float("nan")), "kimg nan"),
}


@pytest.mark.parametrize(("change", "message"), BAD_SNAPSHOTS.values(), ids=BAD_SNAPSHOTS.keys())
def test_a_snapshot_that_does_not_fit_is_told_with_what_is_wrong(
    finished_run: Path, tmp_path: Path, change: Callable[..., object], message: str
) -> None:
    weights, metadata = load_snapshot(finished_run / SNAPSHOT)
    about = json.loads(metadata["run"])
    change(weights, about)
    save_snapshot(tmp_path / "s.safetensors", weights, {"run": json.dumps(about)})
    with pytest.raises(TrainingError) as raised:
        export_run(tmp_path / "s.safetensors", tmp_path / "x.onnx")
    assert message in str(raised.value)
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a snapshot"),
        (b"nonsense" * 10, "not a snapshot"),
        (safetensors.torch.save({"a": torch.zeros(1)}), "does not say how it was trained (KeyError: 'run')"),
        (safetensors.torch.save({"a": torch.zeros(1)}, {"run": "{"}), "does not say how it was trained (JSONDecodeE"),
        (safetensors.torch.save({"a": torch.zeros(1)}, {"run": "[]"}), "does not say how it was trained (TypeError"),
    ],
)
def test_a_file_that_is_no_snapshot_is_told(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "s.safetensors"
    path.write_bytes(data)
    with pytest.raises(TrainingError) as raised:
        load_generator(path)
    assert message in str(raised.value)


def test_an_older_run_without_a_newer_setting_stays_readable(finished_run: Path, tmp_path: Path) -> None:
    weights, metadata = load_snapshot(finished_run / SNAPSHOT)
    about = json.loads(metadata["run"])
    del about["recipe"]["lr_decay"]
    save_snapshot(tmp_path / "s.safetensors", weights, {"run": json.dumps(about)})
    assert load_generator(tmp_path / "s.safetensors").recipe.lr_decay == 0.25
