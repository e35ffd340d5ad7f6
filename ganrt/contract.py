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
import os
import pathlib
import shlex
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from ganrt import card as cards
from ganrt.card import IMAGES, Card
from ganrt.crashes import crash
from ganrt.errors import ContractError, StorageError, UnknownModel
from ganrt.interface import Value, interface_problems, takes_any_size, value_of
from ganrt.lookalikes import looks_like
from ganrt.protobuf import Malformed, Message, short
from ganrt.tensors import check_tensor, numbers

MAX_MODEL_BYTES = (1 << 31) - 1  # 2 GiB, the most that a protobuf message can have
MAX_NODES = 20_000  # unrolled StyleGAN3 has a few thousand
OPSETS = range(18, 21)
IR_VERSIONS = range(4, 14)  # 4 brought overridable initializers; 13 is what ONNX Runtime 1.31 reads

_OPS = """
Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BitShift BitwiseAnd BitwiseNot
BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Concat Constant ConstantOfShape Conv
ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace Div Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor
Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean Min
Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements
ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt
Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
ALLOWED_OPS = frozenset(_OPS.split())

_RANDOM = "random numbers are drawn outside the graph", "Make it a part of z, or a constant, and export it again."
_FLOW = "a generator has no control flow", "Export the generator for fixed sizes, so that branches and loops unroll."
_REFUSED_OPS = {
    "BatchNormalization": (
        "in a finished generator it is a fixed scale and shift",
        "Before exporting, replace it by its scale and shift, or fold those into the weights of its neighbour.",
    ),
    "MeanVarianceNormalization": ("it mixes the images of a batch", "Normalise each image alone and export again."),
    "Dropout": ("it does nothing in a finished generator", "Export the network in eval mode."),
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"), _RANDOM
    ),
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), _FLOW),
}

_FLOAT32, _BOOL = 1, 9  # of TensorProto.DataType
_SESSION_TYPES = {"float": "float32", "double": "float64"}
_AGAIN = "Export it again, or ask whoever made the file."
_DAMAGED = "It is damaged, cut short or no ONNX file. Download or export it again."


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
    where = str(path)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise ContractError(f"{where} is {kind}", "Give the path of one .onnx file.")
        # It may have been replaced since: without O_NONBLOCK, opening a FIFO would wait for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ContractError(f"{where} is no regular file", "Give the path of one .onnx file.")
            _check_size(status.st_size, where)
            data = file.read(status.st_size)
            if len(data) != status.st_size or file.read(1):
                raise ContractError(f"{where} changed while it was read", "Try again when it is completely written.")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        hint = "Give the path of an .onnx file, or a name that ganrt models lists."
        raise UnknownModel(f"there is no file {where}", hint) from None
    except OSError as error:
        raise StorageError(f"cannot read {where}: {error.strerror}", "Check its permissions and its disk.") from error
    card, dynamic = _check_bytes(data, where)
    return CheckedModel(data, hashlib.sha256(data).hexdigest(), card, dynamic)


def check_model(data: bytes, where: str) -> Card:
    """Checks the bytes of an ONNX file against the contract and returns its card.

    ``where`` is what errors call the file: its path, best. Raises ContractError, whatever the bytes are.
    """
    return _check_bytes(data, where)[0]


def _check_bytes(data: bytes, where: str) -> tuple[Card, bool]:
    """The card, and whether images of any size are taken. Raises ContractError."""
    _check_size(len(data), where)
    known = looks_like(data)
    if known is not None:
        raise ContractError(f"{where} is no ONNX file: it looks like {known[0]}", known[1])
    try:
        return _check(memoryview(data), where)
    except Malformed as error:
        raise ContractError(f"{where} cannot be read as an ONNX model: {error}", _DAMAGED) from None


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


def _check_size(size: int, where: str) -> None:
    if not size:
        raise ContractError(f"{where} is empty", "Download or export it again.")
    if size > MAX_MODEL_BYTES:
        raise ContractError(f"{where} has {size:,} bytes; at most {MAX_MODEL_BYTES:,} (2 GiB) are read", _AGAIN)


def _check(data: memoryview, where: str) -> tuple[Card, bool]:
    model = Message(data, "the model")
    graph = model.message(7, "the graph")
    if graph is None:
        raise ContractError(f"{where} is no ONNX model: it has no graph", _DAMAGED)
    card = _card(model, where)  # first: a card of a newer contract says all there is to say
    problems = _version_problems(model, where)

    initializers: dict[str, Message] = {}
    for view in graph.payloads(5):
        tensor = graph.inside(view, "an initializer")
        tensor.name = f"the initializer {short(tensor.text(8))}"
        if tensor.text(8) in initializers:
            raise ContractError(f"{where} has two initializers called {short(tensor.text(8))}", _AGAIN)
        initializers[tensor.text(8)] = tensor

    inputs = [value_of(graph.inside(view, "an input")) for view in graph.payloads(11)]
    outputs = [value_of(graph.inside(view, "an output")) for view in graph.payloads(12)]
    defaults = [value for value in inputs if value.name in initializers]
    inputs = [value for value in inputs if value.name not in initializers]
    problems = interface_problems(inputs, defaults, outputs, card) + problems
    card = _agreeing_card(card, problems, outputs, where)

    if graph.has(15):
        raise ContractError(f"{where} has sparse initializers; a generator's weights are dense", _AGAIN)
    for tensor in initializers.values():
        check_tensor(tensor, where)
    _check_defaults(card, initializers, where)
    nodes = graph.payloads(1)
    if len(nodes) > MAX_NODES:
        raise ContractError(f"{where} has {len(nodes):,} nodes; at most {MAX_NODES:,} are run", _AGAIN)
    for number, view in enumerate(nodes):
        _check_node(graph.inside(view, f"node {number}"), initializers, where)
    return card, card.kind == IMAGES and any(takes_any_size(value) for value in inputs)


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
            raise ContractError(f"{where}: the initializer of {name} is not the {said}", _AGAIN)


def _card(model: Message, where: str) -> Card | None:
    card, keys = None, set()
    for view in model.payloads(14):
        entry = model.inside(view, "the metadata")
        key = entry.text(1)
        if key in keys:
            raise ContractError(f"{where} has two metadata entries called {short(key)}", _AGAIN)
        keys.add(key)
        if key == cards.METADATA_KEY:
            card = _parse_card(entry.payload(2) or b"", where)
    return card


def _parse_card(text: bytes | memoryview, where: str) -> Card:
    if len(text) > cards.MAX_BYTES:
        raise ContractError(f"{where}: its card has {len(text):,} bytes; at most {cards.MAX_BYTES:,} are read", _AGAIN)
    try:
        return Card.from_json(bytes(text))
    except ContractError as error:
        raise ContractError(f"{where}: {error.message}", error.hint) from None


def _version_problems(model: Message, where: str) -> list[str]:
    """Raises for what no generator has; returns what an export can put right."""
    ir_version = model.integer(1)
    if ir_version not in IR_VERSIONS:
        wanted = f"{IR_VERSIONS[0]} to {IR_VERSIONS[-1]}"
        raise ContractError(f"{where} has ONNX's IR version {ir_version}; {wanted} is read", _AGAIN)
    if model.has(25):
        raise ContractError(
            f"{where} holds functions; a generator is made of ONNX's own operators",
            "Inline them, with onnx.inliner.inline_local_functions, and save it again.",
        )
    if model.has(20):
        raise ContractError(f"{where} holds training steps; a generator is only run", "Export it for inference.")
    opsets: list[int] = []
    for view in model.payloads(8):
        opset = model.inside(view, "an opset import")
        if opset.text(1) not in ("", "ai.onnx"):
            raise ContractError(
                f"{where} imports the operators of {short(opset.text(1))}; only ONNX's own are run",
                "Export it with the standard operators only.",
            )
        opsets.append(opset.integer(2))
    if len(opsets) == 1 and opsets[0] in OPSETS:
        return []
    named = " and ".join(map(str, opsets[:3])) or "missing"
    return [f"its opset is {named}; {OPSETS[0]} to {OPSETS[-1]} is expected"]


def _check_node(node: Message, initializers: Mapping[str, Message], where: str) -> None:
    op, domain = node.text(4), node.text(7)
    called = f"{where}: node {short(node.text(3))}" if node.text(3) else f"{where}: {node.name}"
    if domain not in ("", "ai.onnx") or node.has(8):
        raise ContractError(
            f"{called} is {short(op)} of {short(domain)}; only ONNX's own operators are run",
            "Export it with the standard operators only.",
        )
    if op not in ALLOWED_OPS:
        why, hint = _REFUSED_OPS.get(op, ("generators do not need it", "Export it without that operator."))
        raise ContractError(f"{called} is {short(op)}, which the contract refuses: {why}", hint)
    attributes: dict[str, Message] = {}
    for view in node.payloads(5):
        attribute = node.inside(view, f"an attribute of {node.name}")
        if attribute.has(6, 11):
            raise ContractError(f"{called} ({op}) holds a subgraph: {_FLOW[0]}", _FLOW[1])
        if attribute.has(14, 15, 21, 22, 23):
            raise ContractError(f"{called} ({op}) holds a type, a reference or a sparse tensor", _AGAIN)
        attributes[attribute.text(1)] = attribute
        for tensor in [*attribute.payloads(5), *attribute.payloads(10)]:
            check_tensor(attribute.inside(tensor, f"the tensor in {node.name} ({op})"), where)
    wrong = crash(op, node, attributes, initializers)
    if wrong is not None:
        raise ContractError(f"{called} ({op}) could crash ONNX Runtime: {wrong}", _AGAIN)


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
        hint = _AGAIN
    raise ContractError(f"{where} does not follow the ganrt contract{listed}", hint)
