"""What is inside an ONNX file of a stranger, checked before ONNX Runtime sees it: weights, operators, versions.

A generator must follow the contract besides (contract.py); other networks may hold a little more (:data:`NETWORK`).
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ganrt.crashes import crash
from ganrt.errors import ContractError, StorageError, UnknownModel
from ganrt.interface import Value, value_of
from ganrt.lookalikes import looks_like
from ganrt.protobuf import Malformed, Message, short
from ganrt.tensors import check_tensor

MAX_MODEL_BYTES = (1 << 31) - 1  # 2 GiB, the most that a protobuf message can have
MAX_NODES = 20_000  # unrolled StyleGAN3 has a few thousand
NEWEST_OPSET = 20  # that exporters are told to use

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

AGAIN = "Export it again, or ask whoever made the file."
_DAMAGED = "It is damaged, cut short or no ONNX file. Download or export it again."


@dataclass(frozen=True)
class Rules:
    """What a file of some kind may hold, and what errors call it."""

    what: str
    by: str  # who refuses
    ops: frozenset[str]
    opsets: range
    ir_versions: range
    unused_imports: bool = False  # of foreign operators, as converters write them


# IR version 4 brought overridable initializers; 13 is what ONNX Runtime 1.31 reads.
GENERATOR = Rules("generator", "the contract", ALLOWED_OPS, range(18, 21), range(4, 14))
# A network that is only looked through: exporters of any age, batch norms and dropouts that do nothing at inference.
NETWORK = Rules(
    "network", "ganrt", ALLOWED_OPS | {"BatchNormalization", "Dropout"}, range(7, 24), range(3, 14), unused_imports=True
)


@dataclass(frozen=True)
class Graph:
    """A file's interface, and what it says of itself by key. ``defaults`` are inputs that have an initializer."""

    inputs: Sequence[Value]
    defaults: Sequence[Value]
    outputs: Sequence[Value]
    initializers: Mapping[str, Message]
    message: Message


def check_network(data: bytes, where: str) -> tuple[Graph, dict[str, memoryview]]:
    """Checks the bytes of any ONNX network that is to be run, and returns its interface and its metadata.

    ``where`` is what errors call the file: its path, best. Raises ContractError, whatever the bytes are.
    """
    with readable(data, where):
        model, message = open_model(memoryview(data), where)
        if version := version_problem(model, where, NETWORK):
            raise ContractError(f"{where}: {version}", f"Export it with opset {NEWEST_OPSET}.")
        graph = read_graph(message, where)
        check_inside(graph, where, NETWORK)
        return graph, metadata(model, where)


@contextlib.contextmanager
def readable(data: bytes, where: str) -> Iterator[None]:
    """Refuses bytes that cannot be an ONNX file, and tells what goes wrong with the others as ContractError."""
    _check_size(len(data), where)
    known = looks_like(data)
    if known is not None:
        raise ContractError(f"{where} is no ONNX file: it looks like {known[0]}", known[1])
    try:
        yield
    except Malformed as error:
        raise ContractError(f"{where} cannot be read as an ONNX model: {error}", _DAMAGED) from None


def read_file(path: pathlib.Path) -> bytes:
    """A model's bytes, read once.

    Raises UnknownModel when there is no such file, StorageError when it cannot be read, and ContractError when it is no
    regular file, empty or too large.
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
    return data


def _check_size(size: int, where: str) -> None:
    if not size:
        raise ContractError(f"{where} is empty", "Download or export it again.")
    if size > MAX_MODEL_BYTES:
        raise ContractError(f"{where} has {size:,} bytes; at most {MAX_MODEL_BYTES:,} (2 GiB) are read", AGAIN)


def open_model(data: memoryview, where: str) -> tuple[Message, Message]:
    """The model and its graph. Raises ContractError and, as all below, Malformed."""
    model = Message(data, "the model")
    graph = model.message(7, "the graph")
    if graph is None:
        raise ContractError(f"{where} is no ONNX model: it has no graph", _DAMAGED)
    return model, graph


def metadata(model: Message, where: str) -> dict[str, memoryview]:
    """What a file says of itself, by key. Raises ContractError for a key that stands twice."""
    found: dict[str, memoryview] = {}
    for view in model.payloads(14):
        entry = model.inside(view, "the metadata")
        key = entry.text(1)
        if key in found:
            raise ContractError(f"{where} has two metadata entries called {short(key)}", AGAIN)
        found[key] = entry.payload(2) or memoryview(b"")
    return found


def read_graph(graph: Message, where: str) -> Graph:
    """The interface of a graph, and its initializers, not yet checked."""
    initializers: dict[str, Message] = {}
    for view in graph.payloads(5):
        tensor = graph.inside(view, "an initializer")
        tensor.name = f"the initializer {short(tensor.text(8))}"
        if tensor.text(8) in initializers:
            raise ContractError(f"{where} has two initializers called {short(tensor.text(8))}", AGAIN)
        initializers[tensor.text(8)] = tensor
    inputs = [value_of(graph.inside(view, "an input")) for view in graph.payloads(11)]
    outputs = [value_of(graph.inside(view, "an output")) for view in graph.payloads(12)]
    defaults = [value for value in inputs if value.name in initializers]
    return Graph([value for value in inputs if value.name not in initializers], defaults, outputs, initializers, graph)


def check_inside(graph: Graph, where: str, rules: Rules) -> None:
    """Raises ContractError unless all weights are there and all nodes may be run."""
    if graph.message.has(15):
        raise ContractError(f"{where} has sparse initializers; a {rules.what}'s weights are dense", AGAIN)
    for tensor in graph.initializers.values():
        check_tensor(tensor, where)
    nodes = graph.message.payloads(1)
    if len(nodes) > MAX_NODES:
        raise ContractError(f"{where} has {len(nodes):,} nodes; at most {MAX_NODES:,} are run", AGAIN)
    for number, view in enumerate(nodes):
        _check_node(graph.message.inside(view, f"node {number}"), graph.initializers, where, rules)


def version_problem(model: Message, where: str, rules: Rules) -> str:
    """Raises ContractError for what is never run; returns what an export can put right, or nothing."""
    ir_version = model.integer(1)
    if ir_version not in rules.ir_versions:
        wanted = f"{rules.ir_versions[0]} to {rules.ir_versions[-1]}"
        raise ContractError(f"{where} has ONNX's IR version {ir_version}; {wanted} is read", AGAIN)
    if model.has(25):
        raise ContractError(
            f"{where} holds functions; a {rules.what} is made of ONNX's own operators",
            "Inline them, with onnx.inliner.inline_local_functions, and save it again.",
        )
    if model.has(20):
        raise ContractError(f"{where} holds training steps; a {rules.what} is only run", "Export it for inference.")
    opsets: list[int] = []
    for view in model.payloads(8):
        opset = model.inside(view, "an opset import")
        if opset.text(1) not in ("", "ai.onnx"):
            if rules.unused_imports:
                continue  # a node that used them would be refused
            raise ContractError(
                f"{where} imports the operators of {short(opset.text(1))}; only ONNX's own are run",
                "Export it with the standard operators only.",
            )
        opsets.append(opset.integer(2))
    if len(opsets) == 1 and opsets[0] in rules.opsets:
        return ""
    named = " and ".join(map(str, opsets[:3])) or "missing"
    return f"its opset is {named}; {rules.opsets[0]} to {rules.opsets[-1]} is expected"


def _check_node(node: Message, initializers: Mapping[str, Message], where: str, rules: Rules) -> None:
    op, domain = node.text(4), node.text(7)
    called = f"{where}: node {short(node.text(3))}" if node.text(3) else f"{where}: {node.name}"
    if domain not in ("", "ai.onnx") or node.has(8):
        raise ContractError(
            f"{called} is {short(op)} of {short(domain)}; only ONNX's own operators are run",
            "Export it with the standard operators only.",
        )
    if op not in rules.ops:
        texts = _REFUSED_OPS.get(op, ("generators do not need it", "Export it without that operator."))
        why, hint = (text.replace("generator", rules.what) for text in texts)
        raise ContractError(f"{called} is {short(op)}, which {rules.by} refuses: {why}", hint)
    attributes: dict[str, Message] = {}
    for view in node.payloads(5):
        attribute = node.inside(view, f"an attribute of {node.name}")
        if attribute.has(6, 11):
            why, hint = (text.replace("generator", rules.what) for text in _FLOW)
            raise ContractError(f"{called} ({op}) holds a subgraph: {why}", hint)
        if attribute.has(14, 15, 21, 22, 23):
            raise ContractError(f"{called} ({op}) holds a type, a reference or a sparse tensor", AGAIN)
        attributes[attribute.text(1)] = attribute
        for tensor in [*attribute.payloads(5), *attribute.payloads(10)]:
            check_tensor(attribute.inside(tensor, f"the tensor in {node.name} ({op})"), where)
    mode = attributes.get("training_mode")
    if (op == "Dropout" and any(node.texts(1)[2:])) or (op == "BatchNormalization" and mode and mode.integer(3)):
        raise ContractError(f"{called} is {op} as in training, which is refused", "Export the network in eval mode.")
    wrong = crash(op, node, attributes, initializers)
    if wrong is not None:
        raise ContractError(f"{called} ({op}) could crash ONNX Runtime: {wrong}", AGAIN)
