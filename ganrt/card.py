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

from ganrt.errors import ContractError, UnknownClass, UsageError
from ganrt.values import told

CONTRACT = 1  # the version written, and the newest one understood
METADATA_KEY = "ganrt.card"
LATENTS = "latent-to-image"
IMAGES = "image-to-image"
COLOURS = {1: "grey", 3: "RGB"}  # by channels
MAX_BYTES = 1 << 20
MAX_CLASSES = 100_000
MAX_Z_DIM = 1 << 16  # of w_dim too
MAX_NUM_WS = 256
MAX_SIDE = 1 << 14
MAX_SCALE = 16
_MAX_TEXT = 20_000
_MAX_NAME = 200
_MAX_DEPTH = 8
# The fields that only the other kind has, and what they hold in a card of this kind.
_OTHERS: dict[str, dict[str, Any]] = {
    LATENTS: {"scale": 1, "in_channels": 0},
    IMAGES: {"z_dim": 0, "z_distribution": "normal", "class_names": [], "psi": False, "num_ws": 0, "w_dim": 0},
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a generator is and where it comes from.

    ``kind`` is ``latent-to-image`` or ``image-to-image``. ``width``, ``height`` of the images it makes are in
    pixels; ``channels`` is 1 or 3.

    One that is latent-to-image takes latents of ``z_dim`` numbers; ``z_distribution`` is ``normal`` (mean 0,
    deviation 1) or ``uniform`` (-1 to 1). ``class_names`` is empty for an unconditional generator, and label i
    means ``class_names[i]``. ``psi`` says whether the generator takes a truncation. ``num_ws`` is how many layers
    take a w of ``w_dim`` numbers, where the generator can be given w in place of z; 0 and 0 where it cannot.

    One that is image-to-image has none of these. The sides of its images are ``scale`` times those it is given,
    which have ``in_channels`` (0: as many as it makes); ``width`` and ``height`` go with the size it was trained
    on, where it takes any.

    The rest is for people: ``quality`` holds measured figures with their protocol, ``parity`` what the
    comparison at export found, ``exporter`` versions of software.
    """

    name: str
    z_dim: int = 0
    width: int
    height: int
    channels: int
    scale: int = 1
    in_channels: int = 0
    contract: int = CONTRACT
    kind: str = LATENTS
    z_distribution: str = "normal"
    class_names: tuple[str, ...] = ()
    psi: bool = False
    num_ws: int = 0
    w_dim: int = 0
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

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that an image-to-image generator is given, as trained."""
        return self.height // self.scale, self.width // self.scale, self.in_channels or self.channels

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
            raise UnknownClass(f"class {told(wanted)}: generator {self.name} has no classes", "Leave the classes out.")
        shown = ", ".join(self.class_names[:20]) + (f" and {count - 20} more" if count > 20 else "")
        near = difflib.get_close_matches(told(wanted).strip("'"), self.class_names, 3)
        meant = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UnknownClass(f"generator {self.name} has no class {told(wanted)}", f"{meant}It has {count}: {shown}.")

    def to_json(self) -> str:
        """The card as the JSON text that the metadata holds, without what says nothing in a card of its kind."""
        unsaid = {"z_dim": 0, "scale": 1, "in_channels": 0, "num_ws": 0, "w_dim": 0, **_OTHERS.get(self.kind, {})}
        values = asdict(self) | {"class_names": list(self.class_names)}
        said = {name: value for name, value in values.items() if name not in unsaid or value != unsaid[name]}
        return json.dumps(said, ensure_ascii=False, indent=1, allow_nan=False)

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
        needed = ["name", "width", "height", "channels"] + (["z_dim"] if card.get("kind") != IMAGES else [])
        for name in needed:
            if name not in card:
                raise _wrong(f"{name} is missing")
        _check(card)
        if "class_names" in card:
            card["class_names"] = tuple(card["class_names"])
        return cls(**card)


def check_kind(card: Card, kind: str) -> None:
    """Raises UsageError for a generator of the other kind, with what it is for."""
    if card.kind == kind:
        return
    if card.kind == IMAGES:
        raise UsageError(
            f"generator {card.name} is {IMAGES}: it takes images, not latents",
            "Give it images: ganrt translate MODEL IMAGES DIR; in Python, ganrt.translate or ganrt.load_translator.",
        )
    raise UsageError(
        f"generator {card.name} is {LATENTS}: it takes latents, not images",
        "Load it with ganrt.load, or make a dataset with ganrt generate.",
    )


def _check(card: dict[str, Any]) -> None:
    kind = card.get("kind", LATENTS)
    limits = {"width": MAX_SIDE, "height": MAX_SIDE, "channels": 3}
    if kind == LATENTS:
        limits["z_dim"] = MAX_Z_DIM
    elif kind == IMAGES:
        limits["scale"] = MAX_SCALE
    else:
        raise _wrong(f"kind is {_short(kind)}, not {LATENTS} or {IMAGES}")
    for name, limit in limits.items():
        value = card.get(name, 1)  # scale alone may be missing
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise _wrong(f"{name} is {_short(value)}, not a whole number of 1 to {limit}")
    for name, limit in (("num_ws", MAX_NUM_WS), ("w_dim", MAX_Z_DIM)):
        value = card.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
            raise _wrong(f"{name} is {_short(value)}, not a whole number of 0 (no w) to {limit}")
    if bool(card.get("num_ws", 0)) != bool(card.get("w_dim", 0)):
        raise _wrong(f"num_ws is {card.get('num_ws', 0)} and w_dim {card.get('w_dim', 0)}: both or neither are 0")
    if card["channels"] == 2:
        raise _wrong("channels is 2, not 1 (grey) or 3 (RGB)")
    choices = {"z_distribution": ("normal", "uniform"), "psi": (False, True)}
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
    for name, default in _OTHERS[kind].items():
        value = card.get(name, default)
        if type(value) is not type(default) or value != default:
            raise _wrong(f"{name} is {_short(value)}, which no {kind} generator has")
    if kind == IMAGES:
        _check_sizes(card)
    for name in ("quality", "parity", "exporter"):
        value = card.get(name, {})
        if not isinstance(value, dict):
            raise _wrong(f"{name} is {_short(value)}, not an object")
        _check_tree(name, value)


def _check_sizes(card: dict[str, Any]) -> None:
    given = card.get("in_channels", 0)
    if isinstance(given, bool) or not isinstance(given, int) or given not in (0, 1, 3):
        raise _wrong(f"in_channels is {_short(given)}, not 1 (grey), 3 (RGB) or 0 (as channels)")
    scale = card.get("scale", 1)
    for side in ("width", "height"):
        if card[side] % scale:
            raise _wrong(f"{side} is {card[side]}, not a multiple of its scale {scale}")


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
