"""What an ONNX file must be before ONNX Runtime sees it. docs/contract.md is the contract in words.

A generator may come from a stranger, and ONNX Runtime is a large C++ program that trusts its models more
than one should: it opens files that a model names, and runs whatever operators it holds. So a file is
first read here (field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) and refused unless
it is exactly what a generator needs: plain tensor arithmetic, all in the one file, with the inputs and
outputs of the contract.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ganrt import card as cards
from ganrt.card import IMAGES, Card
from ganrt.errors import ContractError
from ganrt.graphs import (
    AGAIN,
    GENERATOR,
    check_inside,
    metadata,
    open_model,
    read_file,
    read_graph,
    readable,
    version_problem,
)
from ganrt.interface import Value, interface_problems, takes_any_size
from ganrt.protobuf import Message
from ganrt.tensors import numbers

_FLOAT32, _BOOL = 1, 9  # of TensorProto.DataType
_SESSION_TYPES = {"float": "float32", "double": "float64"}


@dataclasses.dataclass(frozen=True)
class CheckedModel:
    """The bytes of a generator that follows the contract, their SHA-256 as hex, and its card.

    Give ``data`` to ONNX Runtime, not the path: the file may change after it was checked. ``dynamic`` says that
    it takes images of any size.
    """

    data: bytes = dataclasses.field(repr=False)
    digest: str
    card: Card
    dynamic: bool = False


def read_model(path: pathlib.Path) -> CheckedModel:
    """Reads a generator's file once and checks it.

    Raises UnknownModel when there is no such file, StorageError when it cannot be read, and ContractError
    when it is no regular file, too large, or not what the contract asks for.
    """
    data = read_file(path)
    card, dynamic = _check_bytes(data, str(path))
    return CheckedModel(data, hashlib.sha256(data).hexdigest(), card, dynamic)


def check_model(data: bytes, where: str) -> Card:
    """Checks the bytes of an ONNX file against the contract and returns its card.

    ``where`` is what errors call the file: its path, best. Raises ContractError, whatever the bytes are.
    """
    return _check_bytes(data, where)[0]


def _check_bytes(data: bytes, where: str) -> tuple[Card, bool]:
    """The card, and whether images of any size are taken. Raises ContractError."""
    with readable(data, where):
        return _check(memoryview(data), where)


def card_of_session(session: Any, where: str = "the session") -> Card:
    """The card of a ready-made ``onnxruntime.InferenceSession``, whose inputs and outputs are checked against it.

    The operators inside are not checked: the session has loaded them already. Errors call it ``where``.
    Raises ContractError.
    """

    def values(found: Sequence[Any]) -> list[Value]:
        kinds = [(v.name, v.type.removeprefix("tensor(").removesuffix(")"), v.shape) for v in found]
        return [Value(name, _SESSION_TYPES.get(kind, kind), tuple(shape)) for name, kind, shape in kinds]

    text = session.get_modelmeta().custom_metadata_map.get(cards.METADATA_KEY)
    card = None if text is None else _parse_card(text.encode("utf-8", "replace"), where)
    inputs, outputs = values(session.get_inputs()), values(session.get_outputs())
    defaults = values(session.get_overridable_initializers())
    return _agreeing_card(card, interface_problems(inputs, defaults, outputs, card), outputs, where)


# The model ----------------------------------------------------------------------------------------------------------


def _check(data: memoryview, where: str) -> tuple[Card, bool]:
    model, message = open_model(data, where)
    told = metadata(model, where).get(cards.METADATA_KEY)
    card = None if told is None else _parse_card(told, where)  # first: one of a newer contract says all there is to say
    version = version_problem(model, where, GENERATOR)
    graph = read_graph(message, where)
    problems = interface_problems(graph.inputs, graph.defaults, graph.outputs, card) + [version] * bool(version)
    card = _agreeing_card(card, problems, graph.outputs, where)
    check_inside(graph, where, GENERATOR)
    _check_defaults(card, graph.initializers, where)
    return card, card.kind == IMAGES and any(takes_any_size(value) for value in graph.inputs)


def _check_defaults(card: Card, initializers: Mapping[str, Message], where: str) -> None:
    """Raises ContractError unless what may be left out has the initializers that stand for it."""
    wanted: list[tuple[str, list[int], int, float, str]] = []
    if card.psi:
        wanted.append(("psi", [], _FLOAT32, 1.0, "float32 scalar 1.0"))
    if card.num_ws:
        shape = [1, card.num_ws, card.w_dim]
        wanted.append(("w", shape, _FLOAT32, 0.0, f"float32 {shape} of zeros"))
        wanted.append(("w_given", [], _BOOL, 0.0, "bool scalar false"))
    for name, shape, kind, value, said in wanted:
        tensor = initializers[name]
        fits = tensor.integers(1) == shape and tensor.integer(2) == kind
        if fits:
            held = numbers(tensor)
            held = held.view("u1") if held.dtype.kind == "V" else held  # raw bools come untyped
            fits = bool((held == value).all())
        if not fits:
            raise ContractError(f"{where}: the initializer of {name} is not the {said}", AGAIN)


def _parse_card(text: bytes | memoryview, where: str) -> Card:
    if len(text) > cards.MAX_BYTES:
        raise ContractError(f"{where}: its card has {len(text):,} bytes; at most {cards.MAX_BYTES:,} are read", AGAIN)
    try:
        return Card.from_json(bytes(text))
    except ContractError as error:
        raise ContractError(f"{where}: {error.message}", error.hint) from None


def _agreeing_card(card: Card | None, problems: Sequence[str], outputs: Sequence[Value], where: str) -> Card:
    """The card, when there are no problems. Else raises with all of them and the command that mends most."""
    if card is not None and not problems:
        return card
    listed = f": {problems[0]}" if len(problems) == 1 else ":" + "".join(f"\n  - {problem}" for problem in problems)
    if any("float" in value.dtype for value in outputs) and (card is None or card.kind != IMAGES):
        file = shlex.quote(where) if where.endswith(".onnx") else "FILE.onnx"
        hint = f"If its pixels span -1 to 1, this makes it fit: ganrt export {file} --range=-1,1 --out fitting.onnx"
    elif card is None:
        hint = "Export it with ganrt export, which writes the card, or ask whoever made the file for it."
    else:
        hint = AGAIN
    raise ContractError(f"{where} does not follow the ganrt contract{listed}", hint)
