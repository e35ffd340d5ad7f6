"""A reader of the protobuf wire format for files from strangers: only what checking an ONNX file takes.

The format: https://protobuf.dev/programming-guides/encoding/. Where that lets two parsers see two different
messages, the bytes are refused, so that what was checked is what ONNX Runtime reads: a single field that
stands twice (parsers merge them), a field of another wire type than its own (parsers drop it), a repeated
field half packed and half not, groups, numbers of more than 64 bits.

Nothing is copied or unpacked before it is asked for, a length is believed only when the bytes are there,
and the caller goes down one message at a time, so nothing recurses.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_FIELDS = 1_000_000  # in one file, all messages together: bounds time and memory, far above real generators
MAX_TEXT = 1 << 16  # bytes of one name

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
_WIDTH = {FIXED64: 8, FIXED32: 4}


class Malformed(ValueError):
    """The bytes are not the message they should be. The text says what is wrong, and in which message."""


@dataclass
class Budget:
    """How many more fields may be read from one file."""

    fields: int = MAX_FIELDS

    def spend(self) -> None:
        self.fields -= 1
        if self.fields < 0:
            raise Malformed(f"it has more than {MAX_FIELDS:,} fields")


class Message:
    """One message: its own fields are found, what lies inside them is not yet read.

    ``name`` is what errors call it. Fields are given by their number. Every method raises Malformed.
    """

    def __init__(self, view: memoryview, name: str, budget: Budget | None = None) -> None:
        self.name = name
        self._budget = budget or Budget()
        self._varints: dict[int, list[int]] = {}
        self._bytes: dict[int, list[memoryview]] = {}
        self._wires: dict[int, int] = {}
        at, end = 0, len(view)
        while at < end:
            self._budget.spend()
            tag, at = self._varint(view, at)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag >> 32:
                raise Malformed(f"{name} has a field with the number {number}")
            if self._wires.setdefault(number, wire) != wire:
                raise Malformed(f"field {number} of {name} has two wire types")
            if wire == VARINT:
                value, at = self._varint(view, at)
                self._varints.setdefault(number, []).append(value)
                continue
            if wire == BYTES:
                length, at = self._varint(view, at)
            elif wire in _WIDTH:
                length = _WIDTH[wire]
            else:
                raise Malformed(f"field {number} of {name} has wire type {wire}, which ONNX does not use")
            if length > end - at:
                raise Malformed(f"field {number} of {name} should have {length:,} bytes and {end - at:,} are left")
            self._bytes.setdefault(number, []).append(view[at : at + length])
            at += length

    def has(self, *numbers: int) -> bool:
        """Whether any of the fields is there, whatever is in it."""
        return any(number in self._wires for number in numbers)

    def integer(self, number: int, default: int = 0) -> int:
        """The varint of a field that stands at most once, as a signed 64-bit number."""
        self._expect(number, VARINT)
        found = self._varints.get(number, [])
        self._once(number, len(found))
        return _signed(found[0]) if found else default

    def payload(self, number: int) -> memoryview | None:
        """The bytes of a field that stands at most once, uncopied; None where it is left out."""
        found = self.payloads(number)
        self._once(number, len(found))
        return found[0] if found else None

    def payloads(self, number: int) -> list[memoryview]:
        """The bytes of each occurrence of a repeated field, uncopied."""
        self._expect(number, BYTES)
        return self._bytes.get(number, [])

    def text(self, number: int) -> str:
        """The text of a field that stands at most once; empty where it is left out."""
        value = self.payload(number)
        return "" if value is None else self._text(number, value)

    def texts(self, number: int) -> list[str]:
        """The text of each occurrence of a repeated field."""
        return [self._text(number, value) for value in self.payloads(number)]

    def message(self, number: int, name: str) -> Message | None:
        """The message in a field that stands at most once, called ``name`` in errors; None where it is left out."""
        value = self.payload(number)
        return None if value is None else self.inside(value, name)

    def inside(self, view: memoryview, name: str) -> Message:
        """Reads one of ``payloads`` as a message, called ``name`` in errors."""
        return Message(view, name, self._budget)

    def integers(self, number: int) -> list[int]:
        """A repeated varint field, packed or not, as signed 64-bit numbers."""
        self._expect(number, VARINT, BYTES)
        values = list(self._varints.get(number, []))
        for packed in self._bytes.get(number, []):
            at = 0
            while at < len(packed):
                self._budget.spend()
                value, at = self._varint(packed, at)
                values.append(value)
        return [_signed(value) for value in values]

    def fixed(self, number: int, wire: int) -> memoryview:
        """The bytes of all values of a repeated field of wire type FIXED32 or FIXED64, packed or not."""
        self._expect(number, wire, BYTES)
        values = self._bytes.get(number, [])
        if any(len(value) % _WIDTH[wire] for value in values):
            raise Malformed(f"field {number} of {self.name} has no multiple of {_WIDTH[wire]} bytes")
        return values[0] if len(values) == 1 else memoryview(b"".join(values))

    def _text(self, number: int, value: memoryview) -> str:
        if len(value) > MAX_TEXT:
            raise Malformed(f"field {number} of {self.name} is a name of {len(value):,} bytes")
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError:
            raise Malformed(f"field {number} of {self.name} is no UTF-8 text") from None

    def _expect(self, number: int, *wires: int) -> None:
        if self._wires.get(number, wires[0]) not in wires:
            raise Malformed(f"field {number} of {self.name} has wire type {self._wires[number]}, not {wires[0]}")

    def _once(self, number: int, count: int) -> None:
        if count > 1:
            raise Malformed(f"field {number} of {self.name} stands {count:,} times, not once")

    def _varint(self, view: memoryview, at: int) -> tuple[int, int]:
        """An unsigned number and the place behind it."""
        if at < len(view) and view[at] < 0x80:  # nearly all of them
            return view[at], at + 1
        value = 0
        for shift, byte in enumerate(view[at : at + 10]):
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                if value >> 64:
                    break
                return value, at + shift + 1
        else:
            if len(view) - at < 10:
                raise Malformed(f"{self.name} ends inside a number")
        raise Malformed(f"{self.name} has a number of more than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def short(value: object) -> str:
    """Something out of a file, safe and short enough to stand in an error."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
