"""The generators and feature networks that come with ganrt: are they, byte for byte, the ones that were shipped?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ganrt.errors import GanrtError
from ganrt.files import storage_error
from ganrt.graphs import check_network, read_file
from ganrt.models import FEATURES, list_models, model_folders, shipped_folders

DIGESTS = Path(__file__).with_name("shipped.sha256")  # as sha256sum writes and checks them, relative to exported/

AS_SHIPPED, CHANGED, MISSING, NOT_SHIPPED = "as shipped", "CHANGED", "MISSING", "not shipped"


@dataclass(frozen=True)
class Checked:
    """A model's file, its SHA-256, and its state: as shipped, CHANGED, MISSING, or not shipped with ganrt at all.

    ``problem`` says what else is wrong with it: that its bytes differ, or that it does not follow the contract. The
    name of a feature network begins with ``features/``.
    """

    name: str
    path: Path
    state: str
    sha256: str | None
    problem: str = ""

    @property
    def well(self) -> bool:
        """False for a shipped file that is not what was shipped; others only have to be told apart from it."""
        return self.state in (AS_SHIPPED, NOT_SHIPPED)


def digests() -> dict[str, str]:
    """SHA-256 of each shipped file, by its name: ``fashion``, ``features/fashion``."""
    lines = (line.split() for line in DIGESTS.read_text().splitlines())
    return {name.removesuffix(".onnx"): digest for digest, name in lines}


def check_models(*folders: str | os.PathLike[str]) -> list[Checked]:
    """Compares every model in ``folders``, else all that can be found by name, with what was shipped.

    Those that ganrt did not ship are only checked, generators against the contract. Raises UsageError for a folder
    that is none.
    """
    shipped, own = digests(), [folder.resolve() for folder in shipped_folders()]
    found: list[Checked] = []
    for folder in folders or model_folders():
        if not folders and not os.path.isdir(folder):
            continue
        ours = Path(folder).resolve() in own
        for name, path, told in _models(folder):
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                digest, problem = None, storage_error(error).message
            else:
                problem = told
            if digest in shipped.values():
                found.append(Checked(name, path, AS_SHIPPED, digest))
            elif name in shipped and ours:
                wanted = shipped[name]
                differs = f"its SHA-256 is {digest}, {wanted} was shipped" if digest else problem
                found.append(Checked(name, path, CHANGED, digest, differs))
            else:
                found.append(Checked(name, path, NOT_SHIPPED, digest, problem))
    there = {checked.path.resolve() for checked in found}
    for name in shipped if not folders else ():
        if not any(folder.joinpath(f"{name}.onnx").resolve() in there for folder in own):
            path = next(iter(own), DIGESTS.parent / "exported") / f"{name}.onnx"
            found.append(Checked(name, path, MISSING, None, "the file is not there"))
    return found


def _models(folder: str | os.PathLike[str]) -> Iterator[tuple[str, Path, str]]:
    """The name and file of each generator in a folder and of each network beside them, and what is wrong with it."""
    for model in list_models(folder):
        yield model.name, model.path, model.problem
    for path in sorted(Path(folder, FEATURES).glob("*.onnx")):
        problem = ""
        try:
            check_network(read_file(path), str(path))
        except GanrtError as error:
            problem = error.message
        yield f"{FEATURES}/{path.stem}", path, problem
