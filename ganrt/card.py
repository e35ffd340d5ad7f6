"""The card: what a generator says of itself, kept as JSON in its ONNX file's metadata.

It is the only thing that the runtime must know about a generator, and the contract between training
and runtime. docs/contract.md describes every field.
"""

from __future__ import annotations

import difflib
import json
import math
import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ganrt.errors import ContractError, UnknownClass

CONTRACT = 1  # the version written, and the newest one understood
METADATA_KEY = "ganrt.card"
MAX_BYTES = 1 << 20
MAX_CLASSES = 100_000
MAX_Z_DIM = 1 << 16
MAX_SIDE = 1 << 14
_MAX_TEXT = 20_000
_MAX_NAME = 200
_MAX_DEPTH = 8


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a generator is and where it comes from.

    ``kind`` is ``latent-to-image``; ``z_distribution`` is ``normal`` (mean 0, deviation 1) or
    ``uniform`` (-1 to 1). ``width``, ``height`` are in pixels; ``channels`` is 1 or 3. ``class_names``
    is empty for an unconditional generator, and label i means ``class_names[i]``. ``psi`` says whether
    the generator takes a truncation. The rest is for people: ``quality`` holds measured figures with
    their protocol, ``parity`` what the comparison at export found, ``exporter`` versions of software.
    """

    name: str
    z_dim: int
    width: int
    height: int
    channels: int
    contract: int = CONTRACT
    kind: str = "latent-to-image"
    z_distribution: str = "normal"
    class_names: tuple[str, ...] = ()
    psi: bool = False
    description: str = ""
    data: str = ""
    data_licence: str = ""
    licence: str = ""
    recipe: str = ""
    kimg: float = 0.0
    snapshot_digest: str = ""
    quality: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    exporter: Mapping[str, Any] = field(default_factory=dict)

    def label(self, wanted: str | int) -> int:
        """The label of a class given by exact name, else by a unique name ignoring case, else by number.

        Raises UnknownClass with the names there are.
        """
        count = len(self.class_names)
        if isinstance(wanted, str):
            if wanted in self.class_names:
                return self.class_names.index(wanted)
            alike = [i for i, name in enumerate(self.class_names) if name.casefold() == wanted.casefold()]
            if len(alike) == 1:
                return alike[0]
        try:
            number = int(wanted) if isinstance(wanted, str) else operator.index(wanted)
            number = -1 if isinstance(wanted, bool) else number
        except (TypeError, ValueError):
            number = -1
        if 0 <= number < count:
            return number
        if not count:
            raise UnknownClass(f"class {wanted!r}: generator {self.name} has no classes", "Leave the classes out.")
        shown = ", ".join(self.class_names[:20]) + (f" and {count - 20} more" if count > 20 else "")
        near = difflib.get_close_matches(str(wanted), self.class_names, 3)
        meant = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UnknownClass(f"generator {self.name} has no class {wanted!r}", f"{meant}It has {count}: {shown}.")

    def to_json(self) -> str:
        """The card as the JSON text that the metadata holds."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Card:
        """Reads a card. Fields it does not know are ignored.

        Raises ContractError when the text is no card, when a field has a value that cannot be meant, and
        when the card belongs to a newer contract.
        """
        if len(text) > MAX_BYTES:
            raise _wrong(f"it has {len(text):,} bytes; at most {MAX_BYTES:,} are read")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _wrong(f"it is not JSON ({error.__class__.__name__})") from None
        if not isinstance(values, dict):
            raise _wrong("it is not a JSON object")
        contract = values.get("contract")
        if not isinstance(contract, int) or isinstance(contract, bool) or contract < 1:
            raise _wrong(f"contract is {_short(contract)}, not a version number")
        if contract > CONTRACT:
            raise ContractError(
                f"the generator follows version {_short(contract)} of the ganrt contract; "
                f"this ganrt reads up to {CONTRACT}",
                "Upgrade it: pip install --upgrade ganrt",
            )
        known = {f.name: f for f in fields(cls)}
        card = {name: value for name, value in values.items() if name in known}
        for name in ("name", "z_dim", "width", "height", "channels"):
            if name not in card:
                raise _wrong(f"{name} is missing")
        _check(card)
        if "class_names" in card:
            card["class_names"] = tuple(card["class_names"])
        return cls(**card)


def _check(card: dict[str, Any]) -> None:
    limits = {"z_dim": MAX_Z_DIM, "width": MAX_SIDE, "height": MAX_SIDE, "channels": 3}
    for name, limit in limits.items():
        value = card[name]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise _wrong(f"{name} is {_short(value)}, not a whole number of 1 to {limit}")
    if card["channels"] == 2:
        raise _wrong("channels is 2, not 1 (grey) or 3 (RGB)")
    choices = {"kind": ("latent-to-image",), "z_distribution": ("normal", "uniform"), "psi": (False, True)}
    for name, allowed in choices.items():
        if name in card and not any(card[name] is a or (a == card[name] and isinstance(a, str)) for a in allowed):
            raise _wrong(f"{name} is {_short(card[name])}, not {' or '.join(map(str, allowed))}")
    for name in ("name", "description", "data", "data_licence", "licence", "recipe", "snapshot_digest"):
        if name in card:
            _check_text(name, card[name], _MAX_NAME if name == "name" else _MAX_TEXT)
    if not card["name"].strip():
        raise _wrong("name is empty")
    kimg = card.get("kimg", 0.0)
    if not isinstance(kimg, (int, float)) or isinstance(kimg, bool) or not 0 <= kimg < 1e12:
        raise _wrong(f"kimg is {_short(kimg)}, not a number of thousands of images")
    names = card.get("class_names", [])
    if not isinstance(names, list) or len(names) > MAX_CLASSES:
        raise _wrong(f"class_names is no list of at most {MAX_CLASSES:,} names")
    for index, name in enumerate(names):
        _check_text(f"class_names[{index}]", name, _MAX_NAME)
        if not name.strip():
            raise _wrong(f"class_names[{index}] is empty")
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise _wrong(f"class_names holds {_short(twice)} twice")
    for name in ("quality", "parity", "exporter"):
        value = card.get(name, {})
        if not isinstance(value, dict):
            raise _wrong(f"{name} is {_short(value)}, not an object")
        _check_tree(name, value)


def _check_tree(where: str, value: Any, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise _wrong(f"{where.partition('.')[0]} is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(f"a key of {where}", key, _MAX_NAME)
            _check_tree(f"{where}.{key}", item, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_tree(f"{where}[{index}]", item, depth + 1)
    elif isinstance(value, str):
        _check_text(where, value, _MAX_TEXT)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _wrong(f"{where} is {value}, not a finite number")  # Python's json reads NaN, which JSON has not


def _check_text(name: str, value: Any, limit: int) -> None:
    if not isinstance(value, str) or len(value) > limit:
        raise _wrong(f"{name} is no text of at most {limit:,} characters")
    # Cards are printed on terminals and into Markdown: no escape sequences, no bidirectional overrides, and
    # no line breaks in what stands in a table or a file name.
    allowed = "" if limit == _MAX_NAME else "\n\t"
    if any(not (c.isprintable() or c in allowed) for c in value):
        raise _wrong(f"{name} holds characters that cannot be printed: {_short(value)}")


def _short(value: Any) -> str:
    if isinstance(value, (dict, list)):  # nested too deeply, they could not even be shown
        return "an object" if isinstance(value, dict) else "a list"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _wrong(what: str) -> ContractError:
    return ContractError(
        f"the generator's card cannot be used: {what}", "Export the generator again, or ask whoever made the file."
    )
