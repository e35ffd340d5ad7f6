"""The page of an evaluation and its table of text, from evaluations that are made up."""

from __future__ import annotations

import base64
import getpass
import io
import json
import math
import re
import socket
import subprocess
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from ganrt.errors import StorageError, UsageError
from ganrt_training.evaluation.report import write_evaluation
from ganrt_training.evaluation.result import ClassPictures, Evaluation, Figure, Neighbours, Picture, Pictures
from ganrt_training.evaluation.verdict import table, verdict
from tests.training.test_report import CHROMIUM, EVIL, Page

TEN = [f"class {k}" for k in range(10)]


def picture(shade: int, side: int = 8, channels: int = 1) -> Picture:
    return np.full((side, side, channels), shade % 256, np.uint8)


def noise(seed: int, side: int) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def neighbours(shade: int) -> Neighbours:
    return picture(shade), [picture(shade + k) for k in range(3)], [0.5, 1.25, 2.0]


def classes(names: list[str]) -> list[ClassPictures]:
    return [(name, *([picture(20 * g + k) for k in range(8)] for g in range(4))) for name in names]  # type: ignore[misc]


def figure(
    key: str,
    generated: float,
    real: float | None,
    better: Literal["lower", "higher"] = "higher",
    per_class: dict[str, tuple[float, float | None]] | None = None,
    percent: bool = False,
) -> Figure:
    title = key.replace("_", " ").capitalize()
    return Figure(key, title, generated, real, better, f"What {key} says.", per_class or {}, {"k": 3}, percent)


def recall_of(names: list[str]) -> dict[str, tuple[float, float | None]]:
    """The first class is the worst, the last one is as good as real."""
    return {name: (0.61 * k / max(1, len(names) - 1), 0.61) for k, name in enumerate(names)}


def evaluation(names: list[str], **changes: Any) -> Evaluation:
    figures = (
        figure("frechet", 24.31, 3.02, "lower"),
        figure("recall", 0.412, 0.838, per_class=recall_of(names), percent=True),
        figure("kernel", 0.00342, -0.00001, "lower"),
        figure("density", 1.02, 0.99),
        figure("accuracy_score", 0.865, 0.93, percent=True),
        figure("memorised", 0.032, 0.01, "lower", percent=True),
        figure("exact_copies", 0.0, 0.0, "lower", percent=True),
    )
    protocol = {"features": {"name": "fashion", "digest": "sha256:abcd"}, "generated": 10000, "psi": None, "seed": 3}
    pictures = Pictures([neighbours(k) for k in range(4)], [neighbours(90 + k) for k in range(5)], classes(names))
    made = Evaluation("fashion", protocol, figures, ("class 0: recall 0.0 % where real images have 61.0 %",), pictures)
    return replace(made, **changes)


def hostile() -> Evaluation:
    names = [EVIL, "' onerror='alert(1)", "x" * 200, "字" * 60, "", "\x1b[31mred"]
    evil = replace(figure("recall", 0.1, 0.9, per_class=recall_of(names)), title=EVIL, meaning=EVIL, key=EVIL)
    protocol = {EVIL: EVIL, "features": {"name": EVIL}, "deep": [{EVIL: [EVIL]}]}
    return evaluation(names, source=EVIL, protocol=protocol, figures=(evil,), warnings=(EVIL,))


def written(found: Evaluation, folder: Path) -> Page:
    path = write_evaluation(found, folder)
    assert path == folder / "report.html"
    assert path.stat().st_size < 5_000_000
    return Page(path.read_text(encoding="utf-8"))


def decoded(source: str | None) -> Image.Image:
    head, _, data = (source or "").partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_page_shows_every_figure_beside_that_of_real_images(tmp_path: Path) -> None:
    page = written(evaluation(TEN), tmp_path / "out")
    assert page.text("h1") == "Evaluation of fashion"
    rows = [text for _, text in page.all("tr")]
    assert "Frechet ↓ lower is better24.33.028.05 times real" in rows
    assert "Recall ↑ higher is better41.2 %83.8 %49.2 % of real" in rows
    assert "Density ↑ higher is better1.020.990as good as real" in rows
    assert "What recall says." in rows
    bars = [found["width"] for found, _ in page.all("rect", class_="fill")]
    assert bars == ["12.4", "49.2", "100.0", "93.0", "31.2", "100.0"]
    assert "class 0: recall" in page.text("section", class_="warnings")
    assert "fashion" in page.text("dl") and "10,000" in page.text("dl")
    text = page.text("main")
    assert "name fashion; digest sha256:abcd" in text and "Recallk 3" in text


def test_the_verdict_is_made_of_the_figures() -> None:
    told = verdict(evaluation(TEN))
    assert told == [
        "A classifier that learned from these images alone is right on 86.5 % of the real test images; one that "
        "learned from as many real images, on 93.0 %.",
        "As good as real images, or better: Density, Exact copies.",
        "Worse than real images, the nearest first: Accuracy score (93.0 % of real), Recall (49.2 % of real), "
        "Memorised (3.2 times real), Frechet (8.05 times real), Kernel (0.00342, real -1.00e-05).",
        "The worst class of each figure: Recall: class 0 (0 %, real 61.0 %).",
        "Nearer to a training image than all but 1 % of real images that were held out: 3.2 %.",
        "Exact copies of training images: none.",
    ]
    bare = verdict(replace(evaluation([]), figures=(figure("frechet", math.nan, 1.0), figure("precision", 0.5, None))))
    assert bare == ["How well a classifier learns from these images was not measured.", "Without a value: Frechet."]


@pytest.mark.parametrize(
    ("better", "generated", "real", "told"),
    [
        ("higher", 0.5, 0.5, "as good as real"),
        ("higher", 0.4999999, 0.5, "99.9 % of real"),
        ("higher", -1.0, 0.5, "0.0 % of real"),
        ("higher", -1.0, 0.0, "below real"),
        ("lower", 1e-9, 0.0, "above real"),
        ("lower", 0.001, -0.0002, "no ratio: real is below 0"),
        ("lower", -0.001, -0.0002, "as good as real"),
        ("lower", 0.5000001, 0.5, "1.01 times real"),
        ("lower", 5e9, 1.0, "5e+09 times real"),
        ("higher", math.nan, 1.0, "–"),
        ("lower", 1.0, math.inf, "–"),
        ("lower", 1.0, None, "–"),
    ],
)
def test_how_near_a_figure_is(
    tmp_path: Path, better: Literal["lower", "higher"], generated: float, real: float | None, told: str
) -> None:
    page = written(evaluation([], figures=(figure("x", generated, real, better),)), tmp_path)
    assert [text for _, text in page.all("td")][2] == told


def test_the_worst_classes_are_marked_with_more_than_a_colour(tmp_path: Path) -> None:
    names = [f"c{k}" for k in range(40)]
    page = written(evaluation(names), tmp_path)
    marked = [text for _, text in page.all("td", class_="worst")]
    assert len(marked) == 4 and all(text.startswith("▼ worst: ") for text in marked)
    assert marked[0] == "▼ worst: 0 % / 61.0 %"
    heads = [found.get("scope") for found, _ in page.all("th")]
    assert set(heads) == {"col", "row"}
    good: dict[str, tuple[float, float | None]] = dict.fromkeys(names, (0.7, 0.61))
    best = written(evaluation(names, figures=(figure("recall", 1.0, 0.9, per_class=good),)), tmp_path)
    assert not best.all("td", class_="worst")


def test_pictures_are_one_for_each_group(tmp_path: Path) -> None:
    page = written(evaluation(TEN), tmp_path)
    images = page.images()
    assert len(images) == 10 * 4 + 2 * (5 + 4)
    assert images[0]["alt"] == "8 real images of class 0"
    assert images[3]["alt"] == "8 worst generated images of class 0"
    assert all(image["class"] == "pixels" and image["alt"] for image in images)
    sprite = decoded(images[0]["src"])
    assert sprite.size == (4 * 9 + 1, 2 * 9 + 1) == (int(images[0]["width"] or 0), int(images[0]["height"] or 0))
    assert [sprite.getpixel((5 + 9 * (k % 4), 5 + 9 * (k // 4))) for k in range(8)] == list(range(8))
    near = decoded(images[41]["src"])
    assert [near.getpixel((5 + 9 * k, 5)) for k in range(3)] == [90, 91, 92]
    assert "Distances 0.500 1.25 2.00" in page.text("main")


def test_two_hundred_classes_show_the_pictures_of_the_twenty_worst(tmp_path: Path) -> None:
    names = [f"class {k}" for k in range(200)]
    page = written(evaluation(names), tmp_path)
    assert [text for _, text in page.all("h3")][:20] == names[:20]
    assert len(page.all("article")) == 20
    assert "180 more classes are left out" in page.text("main")
    assert len(page.all("th", scope="row")) > 200
    lines = table(evaluation(names)).splitlines()
    assert len([line for line in lines if line.startswith("class ")]) == 20 + 1
    assert "180 more are in --json" in lines[-1]


def test_large_pictures_are_reduced_until_the_page_is_small(tmp_path: Path) -> None:
    many = [noise(k, 160) for k in range(8)]
    names = [f"class {k}" for k in range(3)]
    pictures = Pictures(by_class=[(name, many, many, many, many) for name in names])
    page = written(evaluation(names, pictures=pictures), tmp_path)
    [note] = re.findall(r"Pictures are reduced to (\d+) pixels a side", page.text("main"))
    cell = (int(page.images()[0]["width"] or 0) - 5) // 4
    assert cell == int(note) < 160
    assert len(page.all("article")) == 3


def test_an_evaluation_without_classes_and_pictures_has_a_page(tmp_path: Path) -> None:
    page = written(evaluation([], pictures=Pictures(), warnings=()), tmp_path)
    assert not page.images() and not page.all("section", class_="warnings")
    assert "There are no figures by class." in page.text("main")
    nothing = written(Evaluation("x", {}, ()), tmp_path)
    assert nothing.text("h1") == "Evaluation of x"
    assert table(Evaluation("x", {}, ())).split() == ["figure", "generated", "real", "better"]


def test_figures_without_a_value(tmp_path: Path) -> None:
    spoilt = figure("recall", math.nan, math.inf, per_class={"a": (math.nan, None), "b": (1.0, math.nan)})
    found = evaluation(["a", "b"], figures=(spoilt, figure("kernel", 1e-7, None, "lower")))
    page = written(found, tmp_path)
    text = page.text("main")
    assert "no valueno value–" in text and "1.00e-07none–" in text
    assert "nan" not in text.lower() and "inf" not in text.replace("Inf", "")
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert told["figures"][0]["generated"] is told["figures"][0]["real"] is None
    assert told["figures"][0]["per_class"]["b"] == {"generated": 1.0, "real": None}
    assert "nan" not in table(found)


def test_the_figures_as_json(tmp_path: Path) -> None:
    protocol = {
        "n": np.int64(3),
        "share": np.float32(0.5),
        "at": Path("/srv/secret/x"),
        "size": (8, 8),
        "odd": math.inf,
    }
    written(evaluation(TEN, protocol=protocol), tmp_path)
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert told["protocol"] == {"n": 3, "share": 0.5, "at": "x", "size": [8, 8], "odd": None}
    assert set(told) == {"source", "protocol", "figures", "warnings"}
    assert told["figures"][1]["per_class"]["class 9"] == {"generated": 0.61, "real": 0.61}
    assert told["figures"][0] == {
        "key": "frechet",
        "title": "Frechet",
        "generated": 24.31,
        "real": 3.02,
        "better": "lower",
        "percent": False,
        "meaning": "What frechet says.",
        "protocol": {"k": 3},
        "per_class": {},
    }


@pytest.mark.parametrize("found", [evaluation(TEN), hostile(), evaluation([])])
def test_figures_are_read_again_as_they_were(found: Evaluation) -> None:
    again = Evaluation.from_json(json.loads(json.dumps(found.to_json())))
    assert again == replace(found, pictures=Pictures())
    nothing = replace(found, figures=(figure("x", math.nan, None),))
    assert math.isnan(Evaluation.from_json(nothing.to_json()).figures[0].generated)


@pytest.mark.parametrize("spoilt", [{}, {"figures": None}, {"figures": [{}]}, {"figures": [3]}, {"protocol": 3}])
def test_what_is_no_evaluation_is_refused(spoilt: dict[str, Any]) -> None:
    values = evaluation(TEN).to_json() | spoilt if spoilt else {}
    with pytest.raises(UsageError, match="no evaluation"):
        Evaluation.from_json(values)


def test_nothing_is_loaded_and_nothing_of_the_machine_is_told(tmp_path: Path) -> None:
    protocol = {"data": f"{tmp_path}/secret/data.zip", "log": ["see /srv/secret/x.log", "C:\\secret\\y"]}
    page = written(evaluation(TEN, protocol=protocol, warnings=(f"left out: {tmp_path}/a b",)), tmp_path / "deep" / "x")
    text = (tmp_path / "deep/x/report.html").read_text()
    assert not re.search(r"(?:src|href|action)\s*=\s*['\"](?!data:)|url\(|@import|<script|fetch\(|https?://", text)
    for word in (str(tmp_path), "secret", "/home", f"/{getpass.getuser()}/", socket.gethostname()):
        assert word not in text
    assert "data.zip" in text
    [policy] = [found["content"] for found, _ in page.all("meta") if "http-equiv" in found]
    assert policy and policy.startswith("default-src 'none'; img-src data:;") and "script" not in policy


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    page = written(hostile(), tmp_path)
    assert not page.all("script") and not page.all("b")
    assert not any(name.startswith("on") for _, found, _ in page.elements for name in found)
    seen = " ".join(EVIL.replace("\ud800", "?").split())
    assert page.text("h1") == f"Evaluation of {seen}"
    assert page.text("h1") in page.text("title")
    assert next(text for _, text in page.all("h3")) == seen
    assert page.images()[0]["alt"] == f"8 real images of {EVIL}".replace("\ud800", "?")


@pytest.mark.parametrize("found", [evaluation(TEN), hostile(), evaluation([])])
def test_the_table_of_text_fits_a_terminal(found: Evaluation) -> None:
    text = table(found)
    lines = text.splitlines()
    assert all(len(line) + len(re.findall("字", line)) < 80 for line in lines)
    assert all(c.isprintable() for line in lines for c in line)
    if found.source == "fashion":
        assert lines[2].split() == ["Recall", "41.2", "%", "83.8", "%", "higher"]
    if len(found.pictures.by_class) == 10:
        assert any(line.split() == ["class", "0", "0.0%/61.0%*"] for line in lines)


def test_the_same_evaluation_makes_the_same_files_and_they_are_replaced(tmp_path: Path) -> None:
    first = write_evaluation(evaluation(TEN), tmp_path).read_bytes()
    assert write_evaluation(evaluation(TEN), tmp_path).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "report.html"]
    assert "Evaluation of other" in written(evaluation(TEN, source="other"), tmp_path).text("title")


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError):
        write_evaluation(evaluation(TEN), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no folder"):
        write_evaluation(evaluation(TEN), tmp_path / "file")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_it_on_a_phone(tmp_path: Path, dark: bool) -> None:
    """Each page in a frame of 360 pixels: how wide it gets, its colours, and whether all its pictures are seen."""
    shown = [evaluation(TEN), hostile(), evaluation([f"class {k}" for k in range(200)]), evaluation([])]
    frames = ""
    for k, found in enumerate(shown):
        text = write_evaluation(found, tmp_path / str(k)).read_text(encoding="utf-8")
        frames += f"<iframe style='width:360px;height:700px' srcdoc='{escape(text)}'></iframe>"
    script = """<script>onload = () => {
      document.title = JSON.stringify([...document.querySelectorAll("iframe")].map((frame) => {
        const page = frame.contentDocument, style = getComputedStyle(page.body), root = page.documentElement;
        const seen = [...page.images].every((image) => image.naturalWidth > 0);
        return [root.scrollWidth, root.clientWidth, style.backgroundColor, style.color, seen];
      }));
    };</script>"""
    (tmp_path / "frames.html").write_text(f"<!doctype html><meta charset=utf-8><title>none</title>{frames}{script}")
    assert CHROMIUM
    options = "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run"
    more = "--disable-sync --disable-background-networking --disable-component-update --enable-logging=stderr --v=0"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [
        CHROMIUM,
        *options.split(),
        *more.split(),
        scheme,
        "--dump-dom",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    address = (tmp_path / "frames.html").as_uri()
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=60)
    assert "CONSOLE" not in done.stderr
    found_title = re.search("<title>(.*?)</title>", done.stdout)
    assert found_title
    for wide, window, ground, ink, pictures in json.loads(found_title[1]):
        assert wide <= window <= 360
        assert (ground, ink) == (
            ("rgb(20, 23, 27)", "rgb(231, 234, 238)") if dark else ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
        )
        assert pictures
