"""What the pages that ganrt writes share: one file each, that loads nothing and tells nothing of the machine.

All text comes from files that anyone may have made, so none of it gets into a page unescaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from ganrt.files import write_synced

_STYLE = Path(__file__).with_name("page.css")
_SHOWN_WARNINGS = 10


def fill(template: Path, parts: Mapping[str, str]) -> str:
    """The template with each ``@@name@@`` replaced by its part, and ``@@base@@`` by the style that pages share."""
    parts = {"base": _STYLE.read_text(encoding="utf-8").rstrip(), **parts}
    return re.sub(r"@@(\w+)@@", lambda match: parts[match[1]], template.read_text(encoding="utf-8"))


def write_page(path: Path, text: str) -> None:
    """Writes the page whole or not at all, unless the file holds it already. Raises OSError."""
    data = text.encode("utf-8", "replace")  # JSON may hold lone surrogates
    if not path.is_file() or path.read_bytes() != data:
        write_synced(path, data)


def data_uri(kind: str, data: bytes) -> str:
    """An image file's bytes as the address of an image; ``kind`` is ``png`` or ``webp``."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def warned(items: Sequence[str]) -> str:
    """The section of warnings, from items that are HTML already; the eleventh and later are folded."""
    if not items:
        return ""
    items = [f"<li>{text}</li>" for text in items]
    text = f"<ul>{''.join(items[:_SHOWN_WARNINGS])}</ul>"
    if more := items[_SHOWN_WARNINGS:]:
        text += f"<details><summary>{len(more)} more</summary><ul>{''.join(more)}</ul></details>"
    return f"<section class='warnings' aria-labelledby='warned'><h2 id='warned'>Warnings</h2>{text}</section>"


def settings(values: Mapping[str, Any]) -> str:
    """Rows of a table: names, and values of any kind that JSON has."""
    return "".join(
        f"<tr><th scope='row'>{escape(str(key))}</th><td>{escape(worth(value))}</td></tr>"
        for key, value in values.items()
    )


def worth(value: Any) -> str:
    """A value that JSON has, as text to be escaped."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, list):
        return ", ".join(map(worth, value)) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{key} {worth(inner)}" for key, inner in value.items()) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value}"


def without_folders(text: str) -> str:
    """Absolute paths cut to their last part: a page that is passed on does not tell of the machine it was made on."""
    if re.match(r"/|~/|[A-Za-z]:[\\/]", text):
        return PurePath(PureWindowsPath(text).name).name or text
    return re.sub(r"(?<![\w/.:])(?:/|~/|[A-Za-z]:\\)(?:[^\s'\"<>]*[/\\])", "", text)
