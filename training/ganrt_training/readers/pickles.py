"""A pickle interpreted, not unpickled: the opcodes that data is written with, and nothing is imported or called.

``pickle.Unpickler`` is not used, not even with a ``find_class`` that allows next to nothing: nine bytes (LONG_BINPUT)
make it fill gigabytes with a memo, a key of nested tuples takes forever to hash, and BUILD sets attributes on
whatever class ``find_class`` gave. The opcodes' specification is the standard library's pickletools.py.
"""

from __future__ import annotations

import pickletools
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, ClassVar

_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OPTIONAL = {"BINFLOAT", "EMPTY_SET", "BINPERSID", "NEWOBJ"}


@dataclass(frozen=True)
class Global:
    """What a pickle asks to be imported: its name alone."""

    name: str


class Machine(ABC):
    """Interprets pickles of one kind, which says what may be named, and what is made instead of calling it.

    Whatever else a pickle asks for is what :meth:`refused` returns. Broken ones raise ValueError, IndexError,
    KeyError or TypeError.
    """

    also: ClassVar[frozenset[str]] = frozenset()  # opcodes that not every kind has

    def run(self, source: bytes | IO[bytes]) -> Any:
        """What one pickle holds; a file is left behind its end."""
        stack: list[Any] = []
        marks: list[int] = []  # heights of the stack
        memo: dict[int, Any] = {}

        def since_mark() -> list[Any]:
            height = marks.pop()
            items = stack[height:]
            del stack[height:]
            return items

        argument: Any
        for opcode, argument, _ in pickletools.genops(source):
            name = opcode.name
            if name in _OPTIONAL and name not in self.also:
                raise self.refused(name, argument)
            if name in _VALUES:
                stack.append(argument)
            elif name in ("BINSTRING", "SHORT_BINSTRING"):
                stack.append(self.old_text(argument.encode("latin-1")))
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "MARK":
                marks.append(len(stack))
            elif name == "EMPTY_DICT":
                stack.append({})
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name == "EMPTY_SET":
                stack.append(self.called("builtins.set", ()))
            elif name in _TUPLES:
                stack.append(tuple([stack.pop() for _ in range(_TUPLES[name])][::-1]))
            elif name == "TUPLE":
                stack.append(tuple(since_mark()))
            elif name in ("APPEND", "APPENDS"):
                items = since_mark() if name == "APPENDS" else [stack.pop()]
                self.expect(stack[-1], list).extend(items)
            elif name in ("SETITEM", "SETITEMS"):
                items = since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
                self.fill(stack[-1], zip(items[::2], items[1::2], strict=True))
            elif name == "GLOBAL":
                stack.append(Global(self.known(self.spelled(argument.replace(" ", ".", 1)))))
            elif name == "STACK_GLOBAL":
                attribute, module = self.expect(stack.pop(), str), self.expect(stack.pop(), str)
                stack.append(Global(self.known(f"{module}.{attribute}")))
            elif name == "BINPERSID":
                stack.append(self.persistent(self.expect(stack.pop(), tuple)))
            elif name in ("REDUCE", "NEWOBJ"):
                arguments, called = self.expect(stack.pop(), tuple), self.expect(stack.pop(), Global)
                stack.append(self.called(called.name, arguments))
            elif name == "BUILD":
                state = stack.pop()
                self.build(stack[-1], state)
            elif name == "STOP":
                return stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise self.refused(name, argument)
        raise ValueError("no STOP")

    @abstractmethod
    def refused(self, opcode: str, argument: Any) -> Exception:
        """The error for an opcode that is not interpreted."""

    @abstractmethod
    def known(self, name: str) -> str:
        """The name, where it may be imported. Raises for any other."""

    @abstractmethod
    def called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What stands for the result of a call."""

    @abstractmethod
    def build(self, target: Any, state: Any) -> None:
        """Gives an object its state."""

    @abstractmethod
    def fill(self, target: Any, items: Iterable[tuple[Any, Any]]) -> None:
        """Puts entries into a dict."""

    def persistent(self, told: tuple[Any, ...]) -> Any:
        """What lies outside of the pickle."""
        raise self.refused("BINPERSID", told)

    def old_text(self, data: bytes) -> str | bytes:
        """A text of Python 2."""
        return data

    def spelled(self, name: str) -> str:
        """A name as Python 3 has it."""
        return name

    def expect(self, value: Any, kind: type | tuple[type, ...]) -> Any:
        """The value. Raises TypeError unless it is of that kind."""
        if not isinstance(value, kind):
            raise TypeError(f"{type(value)}, not {kind}")
        return value
