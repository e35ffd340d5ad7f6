"""The table of docs/zoo.md, made from the figures of its rows."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

from ganrt.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
PAGE, FIGURES = ROOT / "docs" / "zoo.md", ROOT / "docs" / "zoo"
REAL = "real"  # the row of real images: what the others are held against
START, END = "<!-- python -m benchmarks.zoo table writes from here … -->", "<!-- … to here -->"

# The rows there are to be, with settings that let half an hour of one thread show something: statistics often enough,
# and networks of half the width or depth where a step is dear.
ROWS = {
    "mlp_28": "tick_kimg=50 snapshot_kimg=200",
    "dcgan_28": "tick_kimg=20 snapshot_kimg=100",
    "wgan_gp_28": "tick_kimg=20 snapshot_kimg=100",
    "cgan_28": "tick_kimg=20 snapshot_kimg=100",
    "cgan_projection_28": "tick_kimg=5 snapshot_kimg=20",
    "biggan_32": "width=16 tick_kimg=5 snapshot_kimg=20",
    "stylegan2_32": "width=16 tick_kimg=5 snapshot_kimg=20",
    "r3gan_28": "blocks=1 penalty_interval=4 tick_kimg=5 snapshot_kimg=20",
}

# Figures of quality by their keys: what the page calls them, what holds the value, decimals.
QUALITY = {
    "label_fidelity": ("label fidelity", "share", 3),
    "classification_accuracy_score": ("accuracy score", "share", 3),
    "frechet": ("Fréchet distance", "distance", 2),
}

Row = dict[str, Any]


def read_rows(folder: Path) -> dict[str, Row]:
    """The figures of a folder by recipe, those of real images as ``real``."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def filled(page: str, rows: dict[str, Row]) -> str:
    """A page with what stands between its two marks made anew. Raises UsageError when it lacks them."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise UsageError("the page has no place for the table", f"Put {START} and {END} where it is to be.")
    return f"{before}{START}\n\n{_text(rows)}\n{END}{after}"


def _text(rows: dict[str, Row]) -> str:
    trained = [row for name, row in rows.items() if name != REAL]
    trained.sort(key=lambda row: statistics.mean(_both(row, "frechet")))
    figures = " | ".join(f"{title}, both runs" for title, _, _ in QUALITY.values())
    lines = [
        "| recipe | parameters G, D | MACs an image G, D | CPU minutes | training images/s | kimg trained "
        f"| kimg exported, both runs | generation images/s | {figures} |",
        "| --- |" + " ---: |" * 10,
    ]
    if real := rows.get(REAL):
        lines.append(f"| real images |  |  |  |  |  |  |  | {' | '.join(_cell(real, key) for key in QUALITY)} |")
    lines += [_line(row) for row in trained]
    if real:
        through = real["through_32"]
        lines += [
            "",
            f"Real images that went by way of 32x32: label fidelity {through['label_fidelity']:.3f}, Fréchet distance "
            f"{through['frechet']['distance']:.2f} ({through['frechet']['to_images_as_they_are']:.2f} to test images "
            "as they are).",
        ]
    if missing := [name for name in ROWS if name not in rows]:
        lines += ["", f"Not trained yet: {', '.join(f'`{name}`' for name in missing)}."]
    if once := [row["recipe"] for row in trained if "again" not in row]:
        lines += ["", f"One run only, so far: {', '.join(f'`{name}`' for name in once)}."]
    lines += _spread([row for row in trained if "again" in row])
    lines += ["", "### Commands", "", "```"]
    names = [*ROWS, *sorted(_others(rows))]
    lines += [rows[name]["command"] if name in rows else _command(name) for name in names]
    lines += [_again(name, rows.get(name, {}).get("again", {}).get("seed", 1)) for name in names]
    lines += ["```", "", "### Samples", ""]
    for row in trained:
        order = "a class a row" if row["label_fidelity"] else "no classes"
        lines += [f"`{row['recipe']}`, {order}:", "", f"![{row['recipe']}](zoo/{row['recipe']}.png)", ""]
    return "\n".join(lines)


def _line(row: Row) -> str:
    run, generation = row["run"], row["generation"]
    exported = [one["snapshot"]["kimg"] for one in _runs(row)]
    cells = [
        f"`{row['recipe']}`",
        f"{short(row['generator']['parameters'])}, {short(row['discriminator']['parameters'])}",
        f"{short(row['generator']['macs'])}, {short(row['discriminator']['macs'])}",
        f"{run['cpu_seconds'] / 60:.1f}",
        f"{run['images_per_second']:,.0f}",
        f"{run['kimg']:,.0f}",
        ", ".join(f"{kimg:,.0f}" for kimg in exported),
        f"{generation['images_per_second']:,}" + ("" if generation["side_by_side"] else " *"),
        *(_cell(row, key) for key in QUALITY),
    ]
    return f"| {' | '.join(cells)} |"


def _spread(rows: list[Row]) -> list[str]:
    """How far the two runs are apart in each figure, and which neighbours in its order they do not tell apart.

    Those are whose means differ by less than the two runs of some recipe do.
    """
    if not rows:
        return []
    lines = [
        "",
        "### The two runs of each recipe",
        "",
        "| figure | difference of the two, largest | median | neighbours in its order not told apart |",
        "| --- | ---: | ---: | --- |",
    ]
    for key, (title, _, digits) in QUALITY.items():
        both = {row["recipe"]: _both(row, key) for row in rows if row[key]}
        apart = {name: abs(first - second) for name, (first, second) in both.items()}
        if not apart:
            continue
        widest = max(apart, key=lambda name: apart[name])
        means = {name: statistics.mean(values) for name, values in both.items()}
        order = pairwise(sorted(means, key=lambda name: means[name]))
        mixed = [f"`{one}` and `{two}`" for one, two in order if means[two] - means[one] < apart[widest]]
        lines.append(
            f"| {title} | {apart[widest]:.{digits}f} (`{widest}`) | {statistics.median(apart.values()):.{digits}f} "
            f"| {'; '.join(mixed) or 'none'} |"
        )
    return lines


def _runs(row: Row) -> list[Row]:
    """The first run, and the second where there is one."""
    return [row, *([row["again"]] if "again" in row else [])]


def _both(row: Row, key: str) -> list[float]:
    """A figure of each run; none where there are no classes to ask for."""
    return [run[key][QUALITY[key][1]] for run in _runs(row) if run[key]]


def _cell(row: Row, key: str) -> str:
    return ", ".join(f"{value:.{QUALITY[key][2]}f}" for value in _both(row, key))


def _others(rows: dict[str, Row]) -> set[str]:
    return set(rows) - set(ROWS) - {REAL}


def _command(name: str) -> str:
    return f"python -m benchmarks.zoo row {name} {ROWS[name]}"


def _again(name: str, seed: int) -> str:
    return f"python -m benchmarks.zoo again {name}" + (f" --seed {seed}" if seed != 1 else "")


def short(number: int) -> str:
    """Three digits: 1.23 M, 45.6 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            value = number / size
            return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
    return str(number)
