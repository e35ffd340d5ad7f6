"""exported/README.md is what the cards make, and they make it of whatever generators there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks import cards, fashion_train
from benchmarks.macs import macs, parameters
from ganrt.card import Card
from ganrt.contract import read_model
from ganrt_training.describe import macs_of, parameters_of
from ganrt_training.evaluation.result import Evaluation
from ganrt_training.fold import fold_norms
from ganrt_training.gans import find_recipe
from tests.models import tiny_model

NEW: dict[str, Any] = {
    "command": "ganrt evaluate new --real data",
    "evaluation": {
        "source": "new",
        "protocol": {"features": {"name": "trained", "digest": "sha256:ab"}, "n": 1000},
        "figures": [
            {
                "key": "recall",
                "title": "Recall",
                "generated": 0.41,
                "real": 0.84,
                "better": "higher",
                "percent": True,
                "meaning": "What is | missing.",
                "protocol": {"k": 3},
                "per_class": {
                    "a": {"generated": 0.1, "real": 0.8},
                    "b": {"generated": 0.7, "real": None},
                    "c": {"generated": None, "real": None},
                },
            }
        ],
        "warnings": ["class a: recall 10.0 %"],
    },
}

TWICE = NEW | {
    "filtered": NEW["evaluation"] | {"protocol": {"latent_std": 1.2, "confidence": 0.5, "share_kept": 0.65}},
    "by_seed": {"0": {}, "1": {}},
    "spread": {"evaluation": {"recall": 0.02}, "filtered": {"recall": 0.03}},
}


def made(folder: Path, **cards_of: dict[str, Any]) -> list[str]:
    """Words for the command, on tiny generators of such names."""
    exported, images = folder / "exported", folder / "images"
    exported.mkdir()
    images.mkdir()
    for name, changes in cards_of.items():
        names = changes.pop("class_names", ("a", "b", "c"))
        (exported / f"{name}.onnx").write_bytes(tiny_model(name=name, class_names=names, card_changes=changes))
    return ["--exported", str(exported), "--images", str(images)]


def text(words: list[str]) -> str:
    return (Path(words[1]) / "README.md").read_text(encoding="utf-8")


def test_the_page_of_shipped_generators_is_what_their_cards_make() -> None:
    assert cards.main(["--check"]) == 0, "run python -m benchmarks.cards"


def test_a_section_holds_quality_with_protocol_and_spread_and_what_was_written_by_hand(tmp_path: Path) -> None:
    words = made(tmp_path, new={"quality": NEW}, twice={"quality": TWICE}, none={"class_names": ()})
    (tmp_path / "exported" / "new.md").write_text("Say `make new`.\n")
    assert cards.main(words) == 0
    page = text(words)
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")}
    assert list(sections)[1:] == ["new", "none", "twice"]
    assert "### new from nothing\n\nSay `make new`.\n" in sections["new"]
    assert "- Worse than real images, the nearest first: Recall (48.8 % of real)." in sections["new"]
    assert "| Recall | 41.0 % | 84.0 % | higher is better | What is \\| missing. |" in sections["new"]
    assert "| a | **10.0 % / 80.0 %** |" in sections["new"] and "| b | 70.0 % |\n| c | – |" in sections["new"]
    assert "- Warning: class a: recall 10.0 %" in sections["new"]
    assert "| command | ganrt evaluate new --real data |" in sections["new"]
    assert "| Recall | k 3 |" in sections["new"]
    assert "| Recall | 41.0 % | 84.0 % | 2.0 % | higher is better |" in sections["twice"]
    assert "`--latent-std 1.2 --confidence 0.5` (of the images made, 65% are taken):" in sections["twice"]
    assert "| Recall | 41.0 % | 84.0 % | 3.0 % |" in sections["twice"] and "| seeds | 0, 1 |" in sections["twice"]
    assert "Not measured." in sections["none"] and "from nothing" not in sections["none"]
    pixels = 8 * 8 * 3
    assert f"| [`none`](#none) | 8x8 RGB | none | none (CC0-1.0) | Apache-2.0 | {size(words, 'none')} |" in page
    assert f"{1.0 * 8 * pixels / 1e3:.2f} k MACs an image" in sections["none"]


def size(words: list[str], name: str) -> str:
    return f"{(Path(words[1]) / f'{name}.onnx').stat().st_size / 1000:.1f} kB"


def test_every_generator_gets_its_picture(tmp_path: Path) -> None:
    names = [f"class {k}" for k in range(200)]
    words = made(tmp_path, many={"class_names": names})
    assert cards.main(words) == 0
    picture = tmp_path / "images" / "many.png"
    with Image.open(picture) as image:
        assert image.size == (20 * 10 + 2, 10 * 10 + 2)
        pixels = np.asarray(image)
    assert "and 170 more" in text(words)
    Image.fromarray(pixels ^ 1).save(picture)  # one grey level apart, as another machine may draw it
    before = picture.read_bytes()
    assert cards.main(words) == 0 and picture.read_bytes() == before
    Image.fromarray(pixels ^ 64).save(picture)
    assert cards.main(words) == 0
    with Image.open(picture) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_check_tells_a_page_that_is_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = made(tmp_path, one={})
    assert cards.main([*words, "--check"]) == 1
    assert not (tmp_path / "exported" / "README.md").exists()
    assert cards.main(words) == 0
    assert cards.main([*words, "--check"]) == 0
    (tmp_path / "exported" / "one.onnx").write_bytes(tiny_model(name="one", card_changes={"description": "Other."}))
    capsys.readouterr()
    assert cards.main([*words, "--check"]) == 1
    assert "README.md is not what the cards make" in capsys.readouterr().err
    (tmp_path / "images" / "one.png").unlink()
    assert cards.main([*words, "--check"]) == 1
    assert "one has no picture" in capsys.readouterr().err


def test_speed_is_that_of_the_very_file(tmp_path: Path) -> None:
    words = made(tmp_path, one={}, two={})
    assert cards.main([*words, "--speed", "--rounds", "2", "--seconds", "0.01"]) == 0
    told = json.loads((tmp_path / "exported" / "speed.json").read_text())
    assert set(told["generators"]) == {"one", "two"}
    assert told["protocol"]["rounds"] == 2 and not {"system", "date", "host"} & set(told["machine"])
    page = text(words)
    assert "not measured" not in page and page.count("images/s, spread") == 2
    (tmp_path / "exported" / "two.onnx").write_bytes(tiny_model(name="two", seed=1))
    assert cards.main(words) == 0
    assert text(words).count("images/s, spread") == 1 and "| speed | not measured |" in text(words)


def test_a_card_that_holds_no_evaluation_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = made(tmp_path, one={"quality": {"evaluation": {"figures": 3}}})
    assert cards.main(words) == 1
    assert "no evaluation" in capsys.readouterr().err


def layers() -> onnx.ModelProto:
    """z [N, 8] → Gemm with a transposed weight → [N, 4, 3, 3] → grouped Conv, ConvTranspose → MatMul."""

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.zeros(shape, np.float32), name)

    nodes = [
        helper.make_node("Gemm", ["z", "g"], ["a"], transB=1),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Conv", ["b", "c"], ["d"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["d", "e"], ["f"], strides=[2, 2]),
        helper.make_node("MatMul", ["f", "m"], ["images"]),
    ]
    shape = numpy_helper.from_array(np.array([-1, 4, 3, 3]), "shape")
    weights = [weight("g", 36, 8), weight("c", 6, 2, 3, 3), weight("e", 6, 5, 2, 2), weight("m", 6, 7), shape]
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 8])
    out = helper.make_tensor_value_info("images", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "layers", [z], [out], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_multiply_accumulates_are_those_of_the_layers(tmp_path: Path) -> None:
    path = tmp_path / "layers.onnx"
    onnx.save(layers(), path)
    gemm, conv, transposed = 36 * 8, 6 * 9 * 2 * 9, 6 * 9 * 5 * 4
    matmul = 5 * 6 * 7 * 6  # [5, 6, 6] times [6, 7]
    assert macs(path, Card(name="x", z_dim=8, width=6, height=6, channels=3)) == gemm + conv + transposed + matmul
    assert parameters(layers()) == 36 * 8 + 6 * 2 * 9 + 6 * 5 * 4 + 6 * 7


def test_the_shipped_generators_cost_is_that_of_their_recipe_and_the_fast_one_is_a_fifth() -> None:
    recipe = find_recipe(fashion_train.RECIPE).with_overrides(fashion_train.settings("fashion"))
    generator = fold_norms(recipe.build(recipe, 1, 10)[0])
    path = cards.EXPORTED / "fashion.onnx"
    card = read_model(path).card
    wanted = macs_of(generator, torch.zeros(1, card.z_dim), torch.zeros(1, dtype=torch.int64))
    assert card.z_dim == recipe.z_dim
    assert macs(path, card) == wanted
    assert parameters(onnx.load(path)) == pytest.approx(parameters_of(generator), rel=0.01)
    fast = cards.EXPORTED / "fashion-fast.onnx"
    assert macs(fast, read_model(fast).card) <= wanted / 5
    assert max(path.stat().st_size, fast.stat().st_size) <= 10_000_000


def test_the_shipped_generators_are_as_good_as_was_asked_of_them() -> None:
    """By their cards: what was measured, and is measured again before a file is replaced."""
    score = {}
    for name in ("fashion", "fashion-fast"):
        quality = read_model(cards.EXPORTED / f"{name}.onnx").card.quality
        plain, filtered = (
            {one.key: one for one in Evaluation.from_json(quality[kind]).figures} for kind in ("evaluation", "filtered")
        )
        fidelity = plain["label_fidelity"]
        assert fidelity.real and fidelity.generated >= fidelity.real - 0.01
        assert plain["memorised"].generated <= (plain["memorised"].real or 0) and not plain["exact_copies"].generated
        assert all(recall > 0.1 for recall, _ in plain["recall"].per_class.values())  # no class collapsed
        if name == "fashion":
            recall = plain["recall"]
            assert recall.real and recall.generated >= 0.9 * recall.real
        score[name] = plain["accuracy_score"], filtered["accuracy_score"]
    for one, within in zip(score["fashion"], (0.05, 0.03), strict=True):
        assert one.real and one.generated >= one.real - within
    assert all(fast.generated >= big.generated - 0.03 for big, fast in zip(*score.values(), strict=True))
