"""The table of docs/zoo.md, made from the figures of its rows."""

from __future__ import annotations

import json
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
    trained = sorted((row for name, row in rows.items() if name != REAL), key=lambda row: row["frechet"]["distance"])
    lines = [
        "| recipe | parameters G, D | MACs an image G, D | CPU minutes | training images/s | kimg trained, exported "
        "| generation images/s | label fidelity | accuracy score | Fréchet distance |",
        "| --- |" + " ---: |" * 9,
    ]
    if real := rows.get(REAL):
        shares = (f"{real[name]['share']:.3f}" for name in ("label_fidelity", "classification_accuracy_score"))
        lines.append(f"| real images |  |  |  |  |  |  | {' | '.join(shares)} | {real['frechet']['distance']:.2f} |")
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
    lines += ["", "### Commands", "", "```"]
    lines += [rows[name]["command"] if name in rows else _command(name) for name in [*ROWS, *sorted(_others(rows))]]
    lines += ["```", "", "### Samples", ""]
    for row in trained:
        order = "a class a row" if row["label_fidelity"] else "no classes"
        lines += [f"`{row['recipe']}`, {order}:", "", f"![{row['recipe']}](zoo/{row['recipe']}.png)", ""]
    return "\n".join(lines)


def _line(row: Row) -> str:
    run, generation = row["run"], row["generation"]
    scores = (row["label_fidelity"], row["classification_accuracy_score"])
    cells = [
        f"`{row['recipe']}`",
        f"{short(row['generator']['parameters'])}, {short(row['discriminator']['parameters'])}",
        f"{short(row['generator']['macs'])}, {short(row['discriminator']['macs'])}",
        f"{run['cpu_seconds'] / 60:.1f}",
        f"{run['images_per_second']:,.0f}",
        f"{run['kimg']:,.0f}, {row['snapshot']['kimg']:,.0f}",
        f"{generation['images_per_second']:,}" + ("" if generation["side_by_side"] else " *"),
        *(f"{score['share']:.3f}" if score else "" for score in scores),
        f"{row['frechet']['distance']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _others(rows: dict[str, Row]) -> set[str]:
    return set(rows) - set(ROWS) - {REAL}


def _command(name: str) -> str:
    return f"python -m benchmarks.zoo row {name} {ROWS[name]}"


def short(number: int) -> str:
    """Three digits: 1.23 M, 45.6 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            value = number / size
            return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
    return str(number)
