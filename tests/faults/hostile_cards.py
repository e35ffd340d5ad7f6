"""Hostile cards: broken ones, oversized ones, and those that say something else than the graph."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.faults.hostile import CARDS, INTERFACE, LYING, Hostile, changed, changed_translator, constant, set_dim
from tests.models import tiny_card, tiny_model, tiny_translator


def hostile_cards() -> Iterator[Hostile]:
    """All of them."""
    yield from _broken()
    yield from _lying()
    yield from _interface()
    yield from _of_images()


def with_card(text: str) -> bytes:
    """A good generator with this text for its card."""
    return changed(lambda model: setattr(model.metadata_props[0], "value", text))


def with_fields(**fields: Any) -> bytes:
    """A good generator with these fields in its card, whatever they are."""
    return with_card(json.dumps(json.loads(tiny_card().to_json()) | fields))


def _broken() -> Iterator[Hostile]:
    def card(name: str, data: bytes, words: str) -> Hostile:
        return Hostile(f"card-{name}", CARDS, data, "ContractError", words)

    yield card("none", tiny_model(with_card=False), "it has no ganrt card")
    twice = changed(lambda model: model.metadata_props.add(key="ganrt.card", value="{}"))
    yield card("twice", twice, "two metadata entries called 'ganrt.card'")
    yield card("empty", with_card(""), "it is not JSON")
    yield card("no-json", with_card("{"), "it is not JSON")
    yield card("a-list", with_card("[]"), "it is not a JSON object")
    yield card("50-megabytes", with_card(" " * (50 << 20)), "its card has 52,428,800 bytes; at most 1,048,576 are read")
    yield card("nested", with_card('{"a":' * 100_000), "it is not JSON (RecursionError)")
    yield card("nested-lists", with_card("[" * 1_000_000), "it is not JSON (RecursionError)")
    yield card("huge-number", with_card('{"contract": ' + "9" * 1_000_000 + "}"), "it is not JSON")
    yield card("newer", with_fields(contract=2), "follows version 2 of the ganrt contract")
    yield card("contract-1e308", with_card('{"contract": 1e308}'), "contract is 1e+308, not a version number")
    yield card("contract-negative", with_fields(contract=-1), "contract is -1, not a version number")
    yield card("nan", with_fields(kimg=float("nan")), "kimg is nan")
    yield card("infinity-deep", with_fields(quality={"a": [float("inf")]}), "is inf, not a finite number")
    yield card("huge-integer", with_fields(z_dim=10**4000), "not a whole number of 1 to 65536")
    yield card(
        "deep-quality", with_fields(quality=json.loads('{"a":' * 50 + "1" + "}" * 50)), "nested more than 8 deep"
    )
    yield card("kind", with_fields(kind="text-to-image"), "kind is 'text-to-image'")
    yield card("name-empty", with_fields(name="  "), "name is empty")
    yield card("name-long", with_fields(name="x" * 201), "no text of at most 200 characters")
    yield card("name-number", with_fields(name=5), "no text of at most 200 characters")
    for said, text in (
        ("escape", "\x1b[2J\x1b]0;owned\x07"),
        ("c1-control", "\x9b31m"),
        ("bidi", "safe\u202egnp.exe"),
        ("isolate", "a\u2066b"),
        ("line-separator", "a\u2028b"),
        ("nul", "a\0b"),
        ("surrogate", "a\ud800b"),
        ("backspace", "a\b\b\bb"),
    ):
        for key in ("name", "description", "licence", "class_names"):
            value = [text, "b", "c"] if key == "class_names" else text
            yield card(f"{said}-in-{key}", with_fields(**{key: value}), "holds characters that cannot be printed")
    yield card("return-in-description", with_fields(description="a\rb"), "holds characters that cannot be printed")
    yield card("lines-in-a-class", with_fields(class_names=["a\nb", "c", "d"]), "that cannot be printed")
    yield card("classes-many", with_card(_many_classes()), "class_names is no list of at most 100,000 names")
    yield card("class-twice", with_fields(class_names=["a", "a", "b"]), "class_names holds 'a' twice")
    yield card("class-empty", with_fields(class_names=["a", " ", "b"]), "class_names[1] is empty")


def _many_classes() -> str:
    return json.dumps(json.loads(tiny_card().to_json()) | {"class_names": [f"{n:x}" for n in range(100_001)]})


def _lying() -> Iterator[Hostile]:
    def lie(name: str, words: str, **changes: Any) -> Hostile:
        return Hostile(f"card-lies-{name}", LYING, tiny_model(card_changes=changes), "ContractError", words)

    yield lie("z", "z is float32 [N, 8]; float32 [N, 9] is expected", z_dim=9)
    yield lie("width", "finished pixels uint8 [N, 8, 16, 3]", width=16)
    yield lie("height", "finished pixels uint8 [N, 16384, 8, 3]", height=16384)
    yield lie("channels", "finished pixels uint8 [N, 8, 8, 1]", channels=1)
    yield lie("no-classes", "its card says 'z' float32 [N, 8]", class_names=())
    yield lie("psi", "its card says 'z' float32 [N, 8], 'y' int64 [N], 'psi' float32 []", psi=True)
    yield lie("w", "its card says", num_ws=4, w_dim=8)
    yield lie("w-without-layers", "both or neither are 0", w_dim=8)
    more = tiny_model(card_changes={"class_names": ("a", "b", "c", "d")})
    yield Hostile("card-lies-more-classes", LYING, more, "InferenceError", "ONNX Runtime")
    styles = tiny_model(num_ws=3, w_dim=4, card_changes={"num_ws": 4})
    yield Hostile("card-lies-layers", LYING, styles, "ContractError", "is expected")
    for name, change, words in (
        ("psi-of-2", {"psi": True}, "the initializer of psi is not the float32 scalar 1.0"),
        ("w-of-ones", {"num_ws": 3, "w_dim": 4}, "the initializer of w is not the float32 [1, 3, 4] of zeros"),
        ("w_given-true", {"num_ws": 3, "w_dim": 4}, "the initializer of w_given is not the bool scalar false"),
    ):
        target = name.partition("-")[0]
        value = {"psi": np.float32(2), "w": np.ones((1, 3, 4), np.float32), "w_given": np.array(True)}[target]

        def put(model: onnx.ModelProto, target: str = target, value: Any = value) -> None:
            [tensor] = [tensor for tensor in model.graph.initializer if tensor.name == target]
            tensor.CopyFrom(constant(target, value))

        yield Hostile(f"card-lies-{name}", LYING, changed(put, **change), "ContractError", words)


def _interface() -> Iterator[Hostile]:
    def change(name: str, words: str, how: object, **arguments: Any) -> Hostile:
        data = changed(lambda model: how(model.graph), **arguments)  # type: ignore[operator]
        return Hostile(f"interface-{name}", INTERFACE, data, "ContractError", words)

    def retype(value: onnx.ValueInfoProto, kind: int) -> None:
        value.type.tensor_type.elem_type = kind

    for kind, name in (
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.STRING, "string"),
    ):
        yield change(f"z-{name}", f"z is {name}", lambda g, k=kind: retype(g.input[0], k))
    for kind, name in ((TensorProto.INT32, "int32"), (TensorProto.FLOAT, "float32"), (TensorProto.UINT64, "uint64")):
        yield change(f"y-{name}", f"y is {name}", lambda g, k=kind: retype(g.input[1], k))
    yield change("psi-float64", "psi is float64", lambda g: retype(g.input[2], TensorProto.DOUBLE), psi=True)
    yield change("w-float16", "w is float16", lambda g: retype(g.input[2], TensorProto.FLOAT16), num_ws=3, w_dim=4)
    yield change(
        "w_given-int64", "w_given is int64", lambda g: retype(g.input[3], TensorProto.INT64), num_ws=3, w_dim=4
    )
    yield change("images-float32", "images is float32", lambda g: retype(g.output[0], TensorProto.FLOAT))
    yield change("images-int8", "images is int8", lambda g: retype(g.output[0], TensorProto.INT8))
    yield change("batch-of-1", "with a dynamic N", lambda g: set_dim(g.input[0], 0, 1))
    yield change("images-of-batch-1", "with a dynamic N", lambda g: set_dim(g.output[0], 0, 1))
    yield change("images-of-any-height", "images is uint8 [N, H, 8, 3]", lambda g: set_dim(g.output[0], 1, "H"))
    yield change("z-rank-1", "z is float32 [N]", lambda g: g.input[0].type.tensor_type.shape.dim.pop())
    yield change(
        "z-rank-1000", "of 1,002 dimensions", lambda g: g.input[0].type.tensor_type.shape.dim.extend([_one()] * 1000)
    )
    yield change("z-dimension-negative", "z is float32 [N, -8]", lambda g: set_dim(g.input[0], 1, -8))
    yield change(
        "z-dimension-2-to-62", "z is float32 [N, 4611686018427387904]", lambda g: set_dim(g.input[0], 1, 1 << 62)
    )
    yield change("images-no-shape", "of unknown shape", lambda g: g.output[0].type.tensor_type.ClearField("shape"))
    yield change("images-a-sequence", "no tensor", lambda g: g.output[0].type.sequence_type.SetInParent())
    yield change("no-output", "its output is nothing", lambda g: g.output.pop())
    yield change("no-input", "its input is nothing", lambda g: g.ClearField("input"))
    yield change("z-twice", "two of its inputs have the same name", lambda g: g.input.append(g.input[0]))
    more = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 3])
    yield change("images-twice", "its output is", lambda g: g.output.append(more))
    extra = [helper.make_tensor_value_info(f"i{n}", 1, ["N"]) for n in range(10_000)]
    yield change("10,000-inputs", "and 9,998 more", lambda g: g.input.extend(extra))
    yield change("no-psi-default", "psi has no default value", _without_psi, psi=True)


def _one() -> onnx.TensorShapeProto.Dimension:
    return onnx.TensorShapeProto.Dimension(dim_value=1)


def _without_psi(graph: onnx.GraphProto) -> None:
    kept = [tensor for tensor in graph.initializer if tensor.name != "psi"]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _of_images() -> Iterator[Hostile]:
    def lie(name: str, words: str, **changes: Any) -> Hostile:
        data = tiny_translator(scale=2, card_changes=changes)
        return Hostile(f"images-{name}", LYING, data, "ContractError", words, translates=True)

    yield lie("scale", "x is uint8 [N, 8, 8, 3]; uint8 [N, 4, 4, 3] is expected", scale=4)
    yield lie("width", "finished pixels uint8 [N, 16, 8, 3] are expected", width=8)
    yield lie("channels", "finished pixels uint8 [N, 16, 16, 1] are expected", channels=1)
    yield lie("in-channels", "uint8 [N, 8, 8, 1] is expected", in_channels=1)
    yield lie("z", "z_dim is 8, which no image-to-image generator has", z_dim=8)

    def change(name: str, words: str, how: object) -> Hostile:
        data = changed_translator(lambda model: how(model.graph))  # type: ignore[operator]
        return Hostile(f"images-{name}", INTERFACE, data, "ContractError", words, translates=True)

    yield change("x-float32", "x is float32", lambda g: setattr(g.input[0].type.tensor_type, "elem_type", 1))
    yield change("x-of-batch-1", "with a dynamic N", lambda g: set_dim(g.input[0], 0, 1))
    yield change("one-side-dynamic", "or both height and width dynamic", lambda g: set_dim(g.input[0], 1, "H"))
    yield change("y-too", "'y' int64 [N]", lambda g: g.input.append(helper.make_tensor_value_info("y", 7, ["N"])))
    latents = tiny_model()
    yield Hostile("images-of-latents", LYING, latents, "UsageError", "it takes latents, not images", translates=True)
    yield Hostile("latents-of-images", LYING, tiny_translator(), "UsageError", "it takes images, not latents")
