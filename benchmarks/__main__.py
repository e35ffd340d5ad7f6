"""``python -m benchmarks WHAT``: figures side by side, printed as tables and, with ``--json``, written to a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks import encode, generate, goals, graphs, memory, networks, scaling, startup

WHAT = {
    "generate": generate,
    "scaling": scaling,
    "memory": memory,
    "startup": startup,
    "encode": encode,
    "graphs": graphs,
    "goals": goals,
    "networks": networks,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    for name, module in WHAT.items():
        assert module.__doc__
        module.add_arguments(commands.add_parser(name, help=module.__doc__.partition(": ")[2].strip()))
    options = parser.parse_args()
    run: Callable[[argparse.Namespace], int] = WHAT[options.what].run
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
