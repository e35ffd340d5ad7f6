"""Changes valid ONNX files as protobuf: fields changed, doubled, taken away, swapped, and grafted from other files."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

import onnx

EVIL = (0, 1, 2, 3, 7, 8, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
TEXTS = (b"", b"z", b"y", b"images", b"weight", b"ganrt.card", b"\xff\xfe", b"\x1b[2J", b"../../x", b"If", b"x" * 300)
CHANGES = 4  # at most, to one file


@dataclass
class Field:
    """A field of a message: its number, wire type, and what it holds. A message's fields where it is one."""

    number: int
    wire: int
    value: int | bytes | list[Field]
    kind: str  # the type of the message that it holds; empty for other fields


def parsed(data: bytes, descriptor: Any = onnx.ModelProto.DESCRIPTOR) -> list[Field]:
    """The fields of a valid message, all the way down."""
    fields, at = list[Field](), 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            fields.append(Field(number, wire, value, ""))
            continue
        length, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
        held, at = data[at : at + length], at + length
        known = descriptor.fields_by_number.get(number)
        inner = known.message_type if known is not None else None
        if inner is None:
            fields.append(Field(number, wire, held, ""))
        else:
            fields.append(Field(number, wire, parsed(held, inner), inner.name))
    return fields


def written(fields: list[Field]) -> bytes:
    """The bytes of a message, its lengths right."""
    found = bytearray()
    for field in fields:
        found += _bytes_of(field.number << 3 | field.wire)
        if isinstance(field.value, int):
            found += _bytes_of(field.value)
            continue
        held = field.value if isinstance(field.value, bytes) else written(field.value)
        found += (_bytes_of(len(held)) if field.wire == 2 else b"") + held
    return bytes(found)


def mutated(data: bytes, others: list[bytes], random: Random) -> bytes:
    """A file after one to four changes; ``others`` are those that it may get fields of."""
    fields = parsed(data)
    for _ in range(random.randint(1, CHANGES)):
        messages = _messages(fields)
        message = messages[random.randint(0, len(messages) - 1)][1]
        if message:
            random.choice(_CHANGES)(message, fields, others, random)
    return written(fields)


def _messages(fields: list[Field], kind: str = "ModelProto") -> list[tuple[str, list[Field]]]:
    """All messages of a file with their types."""
    found = [(kind, fields)]
    for field in fields:
        if isinstance(field.value, list):
            found += _messages(field.value, field.kind)
    return found


def _change(message: list[Field], fields: list[Field], others: list[bytes], random: Random) -> None:
    field = random.choice(message)
    if isinstance(field.value, int):
        field.value = random.choice(EVIL) if random.random() < 0.7 else random.randint(0, 1 << 20)
    elif isinstance(field.value, bytes) and field.wire == 2:
        choice = random.randint(0, 3)
        if choice == 0 or not field.value:
            field.value = random.choice(TEXTS)
        elif choice == 1:
            field.value = field.value[: random.randint(0, len(field.value))]
        elif choice == 2:
            at = random.randint(0, len(field.value) - 1)
            field.value = field.value[:at] + bytes([random.randint(0, 255)]) + field.value[at + 1 :]
        else:
            field.value = field.value + field.value[: random.randint(1, 8)]
    elif isinstance(field.value, bytes):
        field.value = bytes(random.randint(0, 255) for _ in field.value)


def _delete(message: list[Field], fields: list[Field], others: list[bytes], random: Random) -> None:
    message.remove(random.choice(message))


def _double(message: list[Field], fields: list[Field], others: list[bytes], random: Random) -> None:
    message.insert(random.randint(0, len(message)), random.choice(message))


def _swap(message: list[Field], fields: list[Field], others: list[bytes], random: Random) -> None:
    a, b = random.randint(0, len(message) - 1), random.randint(0, len(message) - 1)
    message[a], message[b] = message[b], message[a]


def _renumber(message: list[Field], fields: list[Field], others: list[bytes], random: Random) -> None:
    field = random.choice(message)
    field.number = random.choice((1, 2, 3, 5, 7, 8, 9, 11, 14, 20, 25, field.number + 1))


def _graft(message: list[Field], fields: list[Field], others: list[bytes], random: Random) -> None:
    """Puts a message of another file, or of this one, in the place of one of its type or beside it."""
    giver = parsed(random.choice(others)) if random.random() < 0.7 else fields
    given = [field for _, inner in _messages(giver) for field in inner if isinstance(field.value, list)]
    taken = random.choice(given)
    alike = [at for at, field in enumerate(message) if field.kind == taken.kind]
    copy = deepcopy(taken)
    if alike and random.random() < 0.6:
        message[random.choice(alike)] = copy
    else:
        message.append(copy)


_Change = Callable[[list[Field], list[Field], list[bytes], Random], None]
_CHANGES: tuple[_Change, ...] = (_change, _change, _change, _delete, _double, _swap, _renumber, _graft)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _bytes_of(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
