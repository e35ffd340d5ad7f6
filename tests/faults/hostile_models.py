"""The corpus of hostile and broken models. ``python -m tests.faults.hostile_models FOLDER`` writes it, to look at."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.faults.hostile import Hostile
from tests.faults.hostile_bombs import hostile_bombs
from tests.faults.hostile_bytes import hostile_bytes
from tests.faults.hostile_cards import hostile_cards
from tests.faults.hostile_graphs import hostile_graphs


def hostile_models() -> list[Hostile]:
    """All of them, each with another name."""
    found = [*hostile_bytes(), *hostile_cards(), *hostile_graphs(), *hostile_bombs()]
    assert len({hostile.name for hostile in found}) == len(found)
    return found


def main(folder: Path) -> None:
    """Writes each file, and lists what ``ganrt`` must say of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for hostile in hostile_models():
        path = hostile.write(folder)
        print(f"{path.name}  ({hostile.row})  {hostile.error}: {hostile.words}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
