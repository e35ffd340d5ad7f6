"""What a generator takes and gives, by name, type and shape: the table of docs/contract.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from ganrt.card import METADATA_KEY, Card
from ganrt.protobuf import Malformed, Message, short
from ganrt.tensors import dtype_name


@dataclasses.dataclass(frozen=True)
class Value:
    """An input or output of a model.

    A dimension is a number, or a name or None where it is dynamic. ``shape`` is None where it is unknown. In
    what is wanted of a model, N is a dynamic dimension and every other name a number that is not known yet.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        return f"{short(self.name)} {self.kind}"

    @property
    def kind(self) -> str:
        """Type and shape, as errors show them: ``float32 [N, 3, 64, 64]``."""
        if self.shape is None:
            return f"{self.dtype} of unknown shape"
        if len(self.shape) > 8:
            return f"{self.dtype} of {len(self.shape):,} dimensions"
        return f"{self.dtype} [{', '.join(map(_dimension, self.shape))}]"

    def fits(self, wanted: Value) -> bool:
        """Whether type and shape are what is wanted."""
        if self.dtype != wanted.dtype or self.shape is None or wanted.shape is None:
            return False
        return len(self.shape) == len(wanted.shape) and all(
            dim == want if isinstance(want, int) else isinstance(dim, int) != (want == "N")
            for dim, want in zip(self.shape, wanted.shape, strict=True)
        )

    def against(self, wanted: Value) -> str:
        """What is wanted in its place, as errors show it."""
        fixed = bool(self.shape and wanted.shape and wanted.shape[0] == "N" and isinstance(self.shape[0], int))
        return wanted.kind + (" with a dynamic N" if fixed else "")


def interface_problems(
    inputs: Sequence[Value], defaults: Sequence[Value], outputs: Sequence[Value], card: Card | None
) -> list[str]:
    """What is wrong with a model's inputs, its inputs that have an initializer, and its outputs.

    They should be what the card says, or without a card what the contract allows. Empty when all is well.
    """
    problems = []
    height, width, channels = (card.height, card.width, card.channels) if card else ("H", "W", "C")
    images = Value("images", "uint8", ("N", height, width, channels))
    if [value.name for value in outputs] != ["images"]:
        problems.append(f"its output is {_listed(outputs)}; finished pixels, {images}, are expected")
    elif not outputs[0].fits(images) or (outputs[0].shape or (0,))[-1] not in (1, 3):
        problems.append(f"images is {outputs[0].kind}; finished pixels {outputs[0].against(images)} are expected")

    weights = [value for value in defaults if value.name not in ("z", "y", "psi")]
    if weights:
        problems.append(f"weights are listed among its inputs: {_listed(weights)}; they should be initializers only")
    given = [*inputs, *(value for value in defaults if value.name in ("z", "y", "psi"))]
    got = {value.name: value for value in given}
    wanted = {"z": Value("z", "float32", ("N", card.z_dim if card else "z_dim"))}
    if card.class_names if card else "y" in got:
        wanted["y"] = Value("y", "int64", ("N",))
    if card.psi if card else "psi" in got:
        wanted["psi"] = Value("psi", "float32", ())
    if len(got) != len(given):
        problems.append("two of its inputs have the same name")
    elif got.keys() != wanted.keys():
        should = "its card says" if card else "expected:"
        problems.append(
            f"its input{'s are' if len(got) > 1 else ' is'} {_listed(given)}; {should} {_listed(wanted.values())}"
        )
    else:
        wrong = [(got[name], want) for name, want in wanted.items() if not got[name].fits(want)]
        problems += [f"{value.name} is {value.kind}; {value.against(want)} is expected" for value, want in wrong]
        problems += [f"{value.name} has a default value" for value in defaults if value.name in ("z", "y")]
        problems += ["psi has no default value; 1.0 is expected" for value in inputs if value.name == "psi"]
    if card is None:
        problems.append(f"it has no ganrt card (metadata key {METADATA_KEY})")
    return problems


def value_of(info: Message) -> Value:
    """Reads a ValueInfoProto. Raises Malformed."""
    name = info.text(1)
    kind = info.message(2, f"the type of {short(name)}")
    tensor = kind.message(1, kind.name) if kind is not None else None
    if kind is None or tensor is None or kind.has(4, 5, 7, 8, 9):
        return Value(name, "no tensor", None)
    shape = tensor.message(2, f"the shape of {short(name)}")
    if shape is None:
        return Value(name, dtype_name(tensor.integer(1)), None)
    dims: list[int | str | None] = []
    for view in shape.payloads(1):
        dim = shape.inside(view, f"a dimension of {short(name)}")
        if dim.has(1) and dim.has(2):
            raise Malformed(f"{dim.name} is both a number and a name")
        dims.append(dim.integer(1) if dim.has(1) else dim.text(2))
    return Value(name, dtype_name(tensor.integer(1)), tuple(dims))


def _listed(values: Iterable[Value]) -> str:
    shown = [str(value) for value in values]
    return (", ".join(shown[:4]) or "nothing") + (f" and {len(shown) - 4:,} more" if len(shown) > 4 else "")


def _dimension(dim: int | str | None) -> str:
    if isinstance(dim, int):
        return str(dim)
    return dim if dim and len(dim) <= 30 and dim.isprintable() else "?"
