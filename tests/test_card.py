"""The card: what is read back, what is refused, and how classes are named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ganrt.card import Card
from ganrt.errors import ContractError, UnknownClass
from tests.models import tiny_card

CARD: dict[str, Any] = {"contract": 1, "name": "tiny", "z_dim": 8, "width": 16, "height": 8, "channels": 3}


def refusal(**changes: Any) -> str:
    """What a user reads about a card with these fields."""
    with pytest.raises(ContractError) as error:
        Card.from_json(json.dumps({**CARD, **changes}))
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"z_dim": 0}, "z_dim is 0, not a whole number of 1 to 65536"),
        ({"z_dim": 8.0}, "z_dim is 8.0, not a whole number"),
        ({"z_dim": True}, "z_dim is True"),
        ({"width": 1 << 20}, "width is 1048576, not a whole number of 1 to 16384"),
        ({"channels": 2}, "channels is 2, not 1 (grey) or 3 (RGB)"),
        ({"channels": 4}, "channels is 4"),
        ({"kind": "image-to-image"}, "kind is 'image-to-image', not latent-to-image"),
        ({"z_distribution": "cauchy"}, "z_distribution is 'cauchy', not normal or uniform"),
        ({"psi": 1}, "psi is 1, not False or True"),
        ({"psi": "yes"}, "psi is 'yes'"),
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
