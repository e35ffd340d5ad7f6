"""Where generators live: name or path → file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ganrt.card import Card
from ganrt.errors import GanrtError, UnknownModel, UsageError
from ganrt.files import storage_error
from ganrt.values import path_of, told

FEATURES = "features"  # the folder of networks that look at images, beside the generators
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Model:
    """A generator's file: its name, where it lies, its bytes, and its card, or what is wrong with it.

    ``dynamic`` says that it takes images of any size.
    """

    name: str
    path: Path
    size: int
    card: Card | None
    problem: str = ""
    dynamic: bool = False


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether it is meant as a path: it has a separator, ends in ``.onnx`` or is no string."""
    if not isinstance(name_or_path, str):
        return True
    separators = {os.sep, os.altsep or os.sep, "/"}
    return any(s in name_or_path for s in separators) or name_or_path.lower().endswith(".onnx")


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a generator given by path or by name; folders in GANRT_MODELS come before the shipped ones.

    Raises UnknownModel.
    """
    if is_path(name_or_path):
        path = path_of("model", name_or_path)
        if _is_file(path):
            return path
        what = (
            "is a folder" if path.is_dir() else "there is no such file" if not path.exists() else "is no regular file"
        )
        raise UnknownModel(
            f"model {os.fspath(path)}: {what}", "Give the path of an .onnx file or a name that `ganrt models` lists."
        )
    for folder in model_folders():
        path = folder / f"{name_or_path}.onnx"
        if _is_file(path):
            return path
    names = sorted({path.stem for folder in model_folders() for path in folder.glob("*.onnx")})
    near = difflib.get_close_matches(str(name_or_path), names, 1)
    meant = f"Did you mean {near[0]}? " if near else ""
    raise UnknownModel(
        f"no model named {told(name_or_path)}",
        f"{meant}There are: {', '.join(names) or 'none'}. A file is given by its path, as in ./{name_or_path}.onnx.",
    )


def list_models(*folders: str | os.PathLike[str]) -> list[Model]:
    """The generators in ``folders``, else in the folders of GANRT_MODELS and the shipped ones.

    A file that is no generator is listed with its ``problem``. Raises UsageError for a folder that is none.
    """
    from ganrt.contract import read_model

    named = [path_of("folder", folder) for folder in folders]
    for folder in named:
        if not os.path.isdir(folder):
            raise UsageError(f"{folder} is no folder", "Name folders that hold .onnx files.")
    found: dict[str, Model] = {}
    for folder in named or model_folders():
        for path in sorted(folder.glob("*.onnx")):
            if path.stem in found:
                continue
            card, problem, dynamic = None, "", False
            try:
                checked = read_model(path)
                card, dynamic = checked.card, checked.dynamic
            except GanrtError as error:  # no generator, or a link that leads nowhere, or not readable
                problem = error.message
            size = os.stat(path, follow_symlinks=card is not None).st_size
            found[path.stem] = Model(path.stem, path, size, card, problem, dynamic)
    return list(found.values())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # its name is too long, or a folder on the way may not be read
        raise storage_error(error) from error


def model_folders() -> Iterator[Path]:
    """Where generators are looked for by name: the folders of GANRT_MODELS, then the shipped ones."""
    for text in os.environ.get("GANRT_MODELS", "").split(os.pathsep):
        if text:
            yield Path(text)
    yield from shipped_folders()


def shipped_folders() -> Iterator[Path]:
    """Where the shipped generators lie: inside an installed wheel; in a checkout."""
    for folder in (_HERE / "exported", _HERE.parent / "exported"):
        if folder.is_dir():
            yield folder
