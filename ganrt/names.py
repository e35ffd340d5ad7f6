"""Names that files may have on every system, made of names that people gave."""

from __future__ import annotations

import re
import unicodedata

MAX_STEM = 200  # bytes: file systems take 255, and there are an ending and .part to come
_ILLEGAL = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]+')
DEVICE = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(?=\.|$)")  # of Windows, which looks before the first dot


def file_stem(name: str) -> str:
    """A file's name without its ending, as every system may have it: what one refuses becomes ``_``.

    Letters of any script stay. A leading or trailing dot or blank, and Windows' device names, are mended too.
    The same again for what it has mended.
    """
    stem = _ILLEGAL.sub("_", name)
    stem = re.sub(r"^[. ]+|[. ]+$", "_", stem) or "_"
    return DEVICE.sub(r"\1_", stem)


def same_file(name: str) -> str:
    """What two names share where some system takes them for one: case and the way accents are written aside."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_text(name: str) -> bool:
    """Whether a name can be written down: no bytes that are no UTF-8, nothing that a terminal would obey."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name.isprintable()
