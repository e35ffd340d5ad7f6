"""Arguments of the library as people give them: each is what it must be, or a UsageError shows what was given."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, SupportsIndex

from ganrt.errors import UsageError

_LONGEST = 200


def told(value: object) -> str:
    """A value for a message, on one line and cut where it is very long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "of thousands of digits"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def path_of(name: str, value: Any) -> Path:
    """A file or folder. The empty path would be the current folder: as a rule it is a variable that was not set."""
    if not isinstance(value, (str, os.PathLike)):
        raise UsageError(f"{name} {told(value)} is no path", "Expected the path of a file or folder, as text or Path.")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"{name} {told(text)} is no path", "Expected the path of a file or folder, not empty.")
    return Path(text)


def choice(name: str, value: Any, allowed: Collection[str], expected: str = "") -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise UsageError(f"{name} {told(value)}", f"Expected {expected or ', '.join(allowed)}.")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False; what is merely truthy, such as the text "no", may be meant otherwise."""
    if type(value).__name__ not in ("bool", "bool_"):  # numpy's own too
        raise UsageError(f"{name} {told(value)}", "Expected True or False.")
    return bool(value)


def several(name: str, value: Any) -> list[Any]:
    """The items of a list, a tuple, an array or the like; a whole number alone is one of them."""
    try:
        return list(value)
    except TypeError:
        if isinstance(value, SupportsIndex):
            return [value]
        raise UsageError(f"{name} {told(value)}", "Expected a list.") from None


def check_hooks(progress: Any, cancel: Any = None) -> None:
    """What a run calls while it works: a function, and an event that is asked whether it is set."""
    if progress is not None and not callable(progress):
        raise UsageError(f"progress {told(progress)} cannot be called", "Expected a function.")
    if cancel is not None and not hasattr(cancel, "is_set"):
        raise UsageError(f"cancel {told(cancel)} is no event", "Expected a threading.Event.")
