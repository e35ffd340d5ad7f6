"""Asks osv.dev whether a pinned version has a known vulnerability.

    python .ci/audit.py [constraints.txt]

Exit code 1 when one has, and 0, with a warning, when the database cannot be reached. OSV_URL names another database.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
URL = "https://api.osv.dev"
SECONDS = 4
# What is known and does not concern ganrt: its id, and why. An entry goes when a version without it is pinned.
ACCEPTED: dict[str, str] = {}


def pins(text: str) -> list[tuple[str, str]]:
    """Names and versions of constraints.txt."""
    return re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)


def vulnerabilities(wanted: list[tuple[str, str]], url: str) -> list[list[str]]:
    """The ids of what is known of each, as https://google.github.io/osv.dev/post-v1-querybatch/ tells them.

    Raises OSError or ValueError when there is no answer, or none of its kind.
    """
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in wanted]
    request = urllib.request.Request(
        f"{url}/v1/querybatch", json.dumps({"queries": queries}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        answer: Any = json.load(response)
    try:
        found = [[str(known["id"]) for known in (result or {}).get("vulns", ())] for result in answer["results"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an answer of osv.dev: {error!r}") from error
    if len(found) != len(wanted):
        raise ValueError(f"{len(found)} answers to {len(wanted)} questions")
    return found


def soon(ask: Callable[[], list[list[str]]]) -> list[list[str]]:
    """What ``ask`` returns or raises, or TimeoutError: looking a name up can take minutes, and heeds no time limit."""
    done: list[list[list[str]] | OSError | ValueError] = []

    def run() -> None:
        try:
            done.append(ask())
        except (OSError, ValueError) as error:
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS + 0.5)
    if not done:
        raise TimeoutError("it does not answer")
    if isinstance(done[0], Exception):
        raise done[0]
    return done[0]


def main(arguments: list[str]) -> int:
    """The exit code."""
    wanted = pins(Path(arguments[0] if arguments else ROOT / "constraints.txt").read_text())
    if not wanted:
        print("audit: nothing is pinned", file=sys.stderr)
        return 1
    try:
        found = soon(lambda: vulnerabilities(wanted, os.environ.get("OSV_URL", URL)))
    except (OSError, ValueError) as error:
        print(f"audit: WARNING, nothing was checked: the database cannot be asked ({error})", file=sys.stderr)
        return 0
    bad = [(name, version, i) for (name, version), ids in zip(wanted, found, strict=True) for i in ids]
    open_ones = [entry for entry in bad if entry[2] not in ACCEPTED]
    for name, version, known in open_ones:
        print(f"audit: {name} {version}: https://osv.dev/vulnerability/{known}", file=sys.stderr)
    accepted = f", {len(bad) - len(open_ones)} accepted" if len(bad) > len(open_ones) else ""
    print(f"audit: {len(wanted)} versions, {len(open_ones)} known vulnerabilities{accepted}")
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
