"""What a generator takes and gives, by name, type and shape: the table of docs/contract.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from ganrt.card import IMAGES, METADATA_KEY, Card
from ganrt.protobuf import Malformed, Message, short
from ganrt.tensors import dtype_name

_DYNAMIC = ("N", "height", "width")
_DEFAULTS = {"psi": "1.0", "w": "zeros", "w_given": "false"}  # inputs that may be left out


@dataclasses.dataclass(frozen=True)
class Value:
    """An input or output of a model.

    A dimension is a number, or a name or None where it is dynamic. ``shape`` is None where it is unknown. In
    what is wanted of a model, N, height and width are dynamic dimensions and every other name a number that is
    not known yet.
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
            dim == want if isinstance(want, int) else isinstance(dim, int) != (want in _DYNAMIC)
            for dim, want in zip(self.shape, wanted.shape, strict=True)
        )

    def against(self, wanted: Value) -> str:
        """What is wanted in its place, as errors show it."""
        dims = zip(self.shape or (), wanted.shape or (), strict=False)
        fixed = [str(want) for dim, want in dims if want in _DYNAMIC and isinstance(dim, int)]
        return wanted.kind + (f" with a dynamic {' and '.join(fixed)}" if fixed else "")


def interface_problems(
    inputs: Sequence[Value], defaults: Sequence[Value], outputs: Sequence[Value], card: Card | None
) -> list[str]:
    """What is wrong with a model's inputs, its inputs that have an initializer, and its outputs.

    They should be what the card says, or without a card what the contract allows. Empty when all is well.
    """
    problems = []
    of_images = card.kind == IMAGES if card else {"x", "z"} & {value.name for value in inputs} == {"x"}
    takes_w = bool(card.num_ws) if card else "w_given" in {value.name for value in (*inputs, *defaults)}
    own = ("x",) if of_images else ("z", "y", "psi", *(("w", "w_given") if takes_w else ()))
    given = [*inputs, *(value for value in defaults if value.name in own)]
    got = {value.name: value for value in given}
    dynamic = of_images and "x" in got and takes_any_size(got["x"])
    height, width, channels = (card.height, card.width, card.channels) if card else ("H", "W", "C")
    images = Value("images", "uint8", ("N", *(("height", "width") if dynamic else (height, width)), channels))
    made = [images] + ([_styles("w_mapped", card)] if takes_w and not of_images else [])
    if [value.name for value in outputs] != [value.name for value in made]:
        second = f", and {made[1]}" if len(made) > 1 else ""
        problems.append(f"its output is {_listed(outputs)}; finished pixels, {images}{second}, are expected")
    elif not outputs[0].fits(images) or (outputs[0].shape or (0,))[-1] not in (1, 3):
        problems.append(f"images is {outputs[0].kind}; finished pixels {outputs[0].against(images)} are expected")
    elif len(made) > 1 and not outputs[1].fits(made[1]):
        problems.append(f"w_mapped is {outputs[1].kind}; {outputs[1].against(made[1])} is expected")

    weights = [value for value in defaults if value.name not in own]
    if weights:
        problems.append(f"weights are listed among its inputs: {_listed(weights)}; they should be initializers only")
    wanted = _wanted_images(card, dynamic) if of_images else _wanted_latents(card, got)
    if len(got) != len(given):
        problems.append("two of its inputs have the same name")
    elif got.keys() != wanted.keys():
        should = "its card says" if card else "expected:"
        problems.append(
            f"its input{'s are' if len(got) > 1 else ' is'} {_listed(given)}; {should} {_listed(wanted.values())}"
            + ("" if card or of_images or "z" in got else f", or {_wanted_images(None, False)['x']} to make images of")
        )
    else:
        wrong = [(got[name], want) for name, want in wanted.items() if not got[name].fits(want)]
        problems += [f"{value.name} is {value.kind}; {value.against(want)} is expected" for value, want in wrong]
        if of_images and wrong and len({isinstance(dim, int) for dim in (got["x"].shape or ())[1:3]}) == 2:
            problems[-1] += ", or both height and width dynamic"
        problems += [f"{v.name} has a default value" for v in defaults if v.name in own and v.name not in _DEFAULTS]
        problems += [
            f"{v.name} has no default value; {_DEFAULTS[v.name]} is expected" for v in inputs if v.name in _DEFAULTS
        ]
    if card is None:
        problems.append(f"it has no ganrt card (metadata key {METADATA_KEY})")
    return problems


def takes_any_size(value: Value) -> bool:
    """Whether images of any height and width may be given for an input."""
    return len(value.shape or ()) == 4 and not any(isinstance(dim, int) for dim in (value.shape or ())[1:3])


def _wanted_latents(card: Card | None, got: Collection[str]) -> dict[str, Value]:
    wanted = {"z": Value("z", "float32", ("N", card.z_dim if card else "z_dim"))}
    if card.class_names if card else "y" in got:
        wanted["y"] = Value("y", "int64", ("N",))
    if card.psi if card else "psi" in got:
        wanted["psi"] = Value("psi", "float32", ())
    if card.num_ws if card else "w_given" in got:
        wanted |= {"w": _styles("w", card), "w_given": Value("w_given", "bool", ())}
    return wanted


def _styles(name: str, card: Card | None) -> Value:
    return Value(name, "float32", ("N", *((card.num_ws, card.w_dim) if card else ("num_ws", "w_dim"))))


def _wanted_images(card: Card | None, dynamic: bool) -> dict[str, Value]:
    height, width, channels = card.in_shape if card else ("H", "W", "C")
    return {"x": Value("x", "uint8", ("N", *(("height", "width") if dynamic else (height, width)), channels))}


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
