"""The generators that come with ganrt: are they, byte for byte, the ones that were shipped?"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ganrt.files import storage_error
from ganrt.models import list_models, model_folders, shipped_folders

DIGESTS = Path(__file__).with_name("shipped.sha256")  # as sha256sum writes and checks them, relative to exported/

AS_SHIPPED, CHANGED, MISSING, NOT_SHIPPED = "as shipped", "CHANGED", "MISSING", "not shipped"


@dataclass(frozen=True)
class Checked:
    """A generator's file, its SHA-256, and its state: as shipped, CHANGED, MISSING, or not shipped with ganrt at all.

    ``problem`` says what else is wrong with it: that its bytes differ, or that it does not follow the contract.
    """

    name: str
    path: Path
    state: str
    sha256: str | None
    problem: str = ""

    @property
    def well(self) -> bool:
        """False for a shipped generator that is not what was shipped; others only have to be told apart from it."""
        return self.state in (AS_SHIPPED, NOT_SHIPPED)


def digests() -> dict[str, str]:
    """SHA-256 of each shipped generator, by its name."""
    lines = (line.split() for line in DIGESTS.read_text().splitlines())
    return {Path(name).stem: digest for digest, name in lines}


def check_models(*folders: str | os.PathLike[str]) -> list[Checked]:
    """Compares every generator in ``folders``, else all that can be found by name, with what was shipped.

    Those that ganrt did not ship are checked against the contract alone. Raises UsageError for a folder that is none.
    """
    shipped, own = digests(), [folder.resolve() for folder in shipped_folders()]
    found: list[Checked] = []
    for folder in folders or model_folders():
        if not folders and not os.path.isdir(folder):
            continue
        for model in list_models(folder):
            try:
                digest = hashlib.sha256(model.path.read_bytes()).hexdigest()
            except OSError as error:
                digest, problem = None, storage_error(error).message
            else:
                problem = model.problem
            if digest in shipped.values():
                found.append(Checked(model.name, model.path, AS_SHIPPED, digest))
            elif model.name in shipped and model.path.parent.resolve() in own:
                wanted = shipped[model.name]
                told = f"its SHA-256 is {digest}, {wanted} was shipped" if digest else problem
                found.append(Checked(model.name, model.path, CHANGED, digest, told))
            else:
                found.append(Checked(model.name, model.path, NOT_SHIPPED, digest, problem))
    for name in shipped if not folders else ():
        there = [checked for checked in found if checked.name == name and checked.path.parent.resolve() in own]
        if not there:
            path = next(iter(own), DIGESTS.parent / "exported") / f"{name}.onnx"
            found.append(Checked(name, path, MISSING, None, "the file is not there"))
    return found
