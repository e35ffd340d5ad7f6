"""The card: what is read back, what is refused, and how classes are named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ganrt.card import IMAGES, Card
from ganrt.errors import ContractError, UnknownClass
from tests.models import tiny_card, tiny_translator_card

CARD: dict[str, Any] = {"contract": 1, "name": "tiny", "z_dim": 8, "width": 16, "height": 8, "channels": 3}
IMAGE_CARD = {key: value for key, value in CARD.items() if key != "z_dim"} | {"kind": IMAGES}


def refusal(card: dict[str, Any] = CARD, **changes: Any) -> str:
    """What a user reads about a card with these fields."""
    with pytest.raises(ContractError) as error:
        Card.from_json(json.dumps({**card, **changes}))
    assert error.value.hint
    return str(error.value)


def test_a_card_comes_back_as_it_was_written() -> None:
    card = tiny_card(
        class_names=("T-shirt/top", "Knöchelschuh", "靴"),
        psi=True,
        card_changes={
            "quality": {"label_fidelity": 0.926, "protocol": ["line one\nline two", None, True]},
            "exporter": {"torch": "2.13"},
            "kimg": 900.5,
            "z_distribution": "uniform",
        },
    )
    assert Card.from_json(card.to_json()) == card
    assert Card.from_json(card.to_json().encode()) == card


def test_unknown_fields_of_the_same_contract_are_ignored() -> None:
    assert Card.from_json(json.dumps({**CARD, "mood": "cheerful"})).name == "tiny"


def test_a_newer_contract_is_refused_by_its_number() -> None:
    text = refusal(contract=2, z_dim="many")
    assert "follows version 2 of the ganrt contract; this ganrt reads up to 1" in text
    assert "pip install --upgrade ganrt" in text
    assert len(refusal(contract=10**4000)) < 300


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe\x00", "[" * 100_000, '{"contract": true}'])
def test_what_is_no_card(text: str | bytes) -> None:
    with pytest.raises(ContractError, match="the generator's card cannot be used"):
        Card.from_json(text)


@pytest.mark.parametrize("missing", ["name", "z_dim", "width", "height", "channels"])
def test_what_the_runtime_must_know_cannot_be_left_out(missing: str) -> None:
    with pytest.raises(ContractError, match=f"{missing} is missing"):
        Card.from_json(json.dumps({key: value for key, value in CARD.items() if key != missing}))
    if missing != "z_dim":
        with pytest.raises(ContractError, match=f"{missing} is missing"):
            Card.from_json(json.dumps({key: value for key, value in IMAGE_CARD.items() if key != missing}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"z_dim": 0}, "z_dim is 0, not a whole number of 1 to 65536"),
        ({"z_dim": 8.0}, "z_dim is 8.0, not a whole number"),
        ({"z_dim": True}, "z_dim is True"),
        ({"width": 1 << 20}, "width is 1048576, not a whole number of 1 to 16384"),
        ({"channels": 2}, "channels is 2, not 1 (grey) or 3 (RGB)"),
        ({"channels": 4}, "channels is 4"),
        ({"kind": "text-to-image"}, "kind is 'text-to-image', not latent-to-image or image-to-image"),
        ({"kind": ["image-to-image"]}, "kind is a list, not latent-to-image or image-to-image"),
        ({"scale": 2}, "scale is 2, which no latent-to-image generator has"),
        ({"in_channels": 3}, "in_channels is 3, which no latent-to-image generator has"),
        ({"z_distribution": "cauchy"}, "z_distribution is 'cauchy', not normal or uniform"),
        ({"psi": 1}, "psi is 1, not False or True"),
        ({"psi": "yes"}, "psi is 'yes'"),
        ({"num_ws": 4}, "num_ws is 4 and w_dim 0: both or neither are 0"),
        ({"w_dim": 4}, "num_ws is 0 and w_dim 4: both or neither are 0"),
        ({"num_ws": 257, "w_dim": 4}, "num_ws is 257, not a whole number of 0 (no w) to 256"),
        ({"num_ws": -1, "w_dim": 4}, "num_ws is -1, not a whole number"),
        ({"num_ws": 4, "w_dim": 1 << 20}, "w_dim is 1048576, not a whole number of 0 (no w) to 65536"),
        ({"num_ws": True, "w_dim": 4}, "num_ws is True, not a whole number"),
        ({"num_ws": "4", "w_dim": 4}, "num_ws is '4', not a whole number"),
        ({"kimg": -1}, "kimg is -1"),
        ({"kimg": float("nan")}, "kimg is nan"),
        ({"name": "  "}, "name is empty"),
        ({"name": "x" * 300}, "name is no text of at most 200 characters"),
        ({"name": "a\nb"}, "name holds characters that cannot be printed: 'a\\nb'"),
        ({"description": "\x1b[31mred"}, "description holds characters that cannot be printed: '\\x1b[31mred'"),
        ({"licence": "a\u202eb"}, "licence holds characters that cannot be printed"),
        ({"class_names": "abc"}, "class_names is no list"),
        ({"class_names": ["a", 1]}, "class_names[1] is no text"),
        ({"class_names": ["a", ""]}, "class_names[1] is empty"),
        ({"class_names": ["a", "b\tc"]}, "class_names[1] holds characters that cannot be printed"),
        ({"class_names": ["a", "b", "a"]}, "class_names holds 'a' twice"),
        ({"class_names": [str(i) for i in range(100_001)]}, "class_names is no list of at most 100,000 names"),
        ({"quality": [1]}, "quality is a list, not an object"),
        ({"quality": {"fid": float("inf")}}, "quality.fid is inf, not a finite number"),
        ({"quality": {"\x1b": 1}}, "a key of quality holds characters that cannot be printed"),
        ({"parity": {"worst": ["\x1b"]}}, "parity.worst[0] holds characters that cannot be printed"),
    ],
)
def test_values_that_cannot_be_meant(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(**changes)


def test_a_card_of_latents_says_nothing_of_images_taken() -> None:
    said = json.loads(tiny_card().to_json())
    assert list(said)[:6] == ["name", "z_dim", "width", "height", "channels", "contract"]
    assert not {"scale", "in_channels"} & said.keys()
    assert Card.from_json(json.dumps(CARD | {"scale": 1, "in_channels": 0})) == Card.from_json(json.dumps(CARD))


def test_a_card_says_nothing_of_w_where_there_is_none() -> None:
    assert not {"num_ws", "w_dim"} & json.loads(tiny_card().to_json()).keys()
    card = tiny_card(num_ws=4, w_dim=6)
    assert json.loads(card.to_json()).items() >= {"num_ws": 4, "w_dim": 6}.items()
    assert Card.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (8, 16, 3)),
        ({"z_dim": 0, "z_distribution": "normal", "class_names": [], "psi": False, "scale": 1}, (8, 16, 3)),
        ({"scale": 4}, (2, 4, 3)),
        ({"in_channels": 1, "scale": 8}, (1, 2, 1)),
        ({"in_channels": 3}, (8, 16, 3)),
        ({"channels": 1, "in_channels": 3}, (8, 16, 3)),
    ],
)
def test_a_card_of_images_tells_which_are_taken(changes: dict[str, Any], shape: tuple[int, int, int]) -> None:
    card = Card.from_json(json.dumps(IMAGE_CARD | changes))
    assert (card.kind, card.z_dim, card.in_shape) == ("image-to-image", 0, shape)
    assert Card.from_json(card.to_json()) == card
    assert not {"z_dim", "z_distribution", "class_names", "psi"} & json.loads(card.to_json()).keys()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"z_dim": 8}, "z_dim is 8, which no image-to-image generator has"),
        ({"z_dim": False}, "z_dim is False, which no image-to-image generator has"),
        ({"z_distribution": "uniform"}, "z_distribution is 'uniform', which no image-to-image generator has"),
        ({"class_names": ["a"]}, "class_names is a list, which no image-to-image generator has"),
        ({"psi": True}, "psi is True, which no image-to-image generator has"),
        ({"num_ws": 4, "w_dim": 4}, "num_ws is 4, which no image-to-image generator has"),
        ({"scale": 0}, "scale is 0, not a whole number of 1 to 16"),
        ({"scale": 17}, "scale is 17, not a whole number of 1 to 16"),
        ({"scale": 2.0}, "scale is 2.0, not a whole number"),
        ({"scale": True}, "scale is True, not a whole number"),
        ({"scale": 3}, "width is 16, not a multiple of its scale 3"),
        ({"scale": 16}, "height is 8, not a multiple of its scale 16"),
        ({"in_channels": 2}, "in_channels is 2, not 1 (grey), 3 (RGB) or 0 (as channels)"),
        ({"in_channels": True}, "in_channels is True, not 1"),
        ({"in_channels": "3"}, "in_channels is '3', not 1"),
        ({"width": 0}, "width is 0, not a whole number of 1 to 16384"),
    ],
)
def test_values_that_cannot_be_meant_of_images(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(IMAGE_CARD, **changes)


@pytest.mark.parametrize(
    "changes", [{"psi": True}, {"class_names": ("a",)}, {"z_dim": 3}, {"z_distribution": "uniform"}]
)
def test_what_does_not_belong_in_a_card_of_images_is_not_hidden(changes: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="which no image-to-image generator has"):
        Card.from_json(tiny_translator_card(card_changes=changes).to_json())


def test_finding_the_class_that_stands_twice_is_quick_for_many_classes() -> None:
    names = [str(i) for i in range(90_000)]
    assert "class_names holds '89999' twice" in refusal(class_names=[*names, "89999"])


@pytest.mark.parametrize("depth", [20, 900])
@pytest.mark.parametrize("field", ["quality", "contract", "z_dim", "name"])
def test_nesting_is_bounded(field: str, depth: int) -> None:
    text = json.dumps(CARD | {field: "here"}).replace('"here"', '{"a":' + "[" * depth + "]" * depth + "}")
    with pytest.raises(ContractError):
        Card.from_json(text)


def test_a_card_that_is_too_long_is_not_parsed() -> None:
    with pytest.raises(ContractError, match="at most 1,048,576 are read"):
        Card.from_json("{" + " " * (1 << 20))


@pytest.mark.parametrize(
    ("wanted", "label"),
    [("Bag", 0), ("bag", 1), ("BAG", None), ("SNEAKER", 2), ("2", 2), (2, 2), ("7", 3), (7, None), (3, 3)],
)
def test_a_class_by_exact_name_then_ignoring_case_then_by_number(wanted: str | int, label: int | None) -> None:
    card = tiny_card(class_names=("Bag", "bag", "Sneaker", "7"))
    if label is not None:
        assert card.label(wanted) == label
        return
    with pytest.raises(UnknownClass) as error:
        card.label(wanted)
    assert f"generator tiny has no class {wanted!r}" in str(error.value)
    assert "It has 4: Bag, bag, Sneaker, 7." in str(error.value)


@pytest.mark.parametrize("wanted", [-1, "-1", "4", True, "", "1.5"])
def test_classes_that_there_are_not(wanted: str | int) -> None:
    with pytest.raises(UnknownClass, match="has no class"):
        tiny_card(class_names=("a", "b", "c")).label(wanted)


def test_a_generator_without_classes_and_one_with_many() -> None:
    with pytest.raises(UnknownClass, match=r"generator tiny has no classes\nLeave the classes out"):
        tiny_card(class_names=()).label("a")
    with pytest.raises(UnknownClass, match=r"It has 1000: n0, .*, n19 and 980 more"):
        tiny_card(class_names=[f"n{i}" for i in range(1000)]).label("x")
