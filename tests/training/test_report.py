from __future__ import annotations

import getpass
import json
import math
import re
import shutil
import socket
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from ganrt.errors import StorageError, TrainingError
from ganrt_training.report import write_report

NAMES = ["Trouser", "Bag"]
RECIPE = {"name": "cgan_28", "image_size": 28, "z_dim": 64, "batch_size": 32, "loss": "hinge", "total_kimg": 100.0}
ABOUT = {"recipe": RECIPE, "seed": 3, "channels": 1, "class_names": NAMES, "images": 1234, "data": "sha256:abcd"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Every element with its attributes and its text, each checked to be closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert not self._open, [self.elements[k][0] for k in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self._open:
            self.elements[index][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (found, " ".join("".join(text).split()))
            for name, found, text in self.elements
            if name == tag and all(found.get(key.strip("_")) == value for key, value in attributes.items())
        ]

    def text(self, tag: str, **attributes: str) -> str:
        [(_, text)] = self.all(tag, **attributes)
        return text

    def images(self) -> list[dict[str, str | None]]:
        return [found for found, _ in self.all("img")]

    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.text("script", id="data")))

    def charts(self) -> list[str | None]:
        return [found["data-figures"] for found, _ in self.all("figure", class_="chart")]


def tick(kimg: float, **figures: Any) -> str:
    usual = {
        "step": round(kimg * 31.25),
        "kimg": kimg,
        "seconds": kimg * 60,
        "images_per_second": 16.7,
        "discriminator_loss": 1.1,
        "generator_loss": 0.4,
        "real_accuracy": 0.7,
        "fake_accuracy": 0.6,
        "quality": 1 / (1 + kimg),
        "diversity": 0.9,
    }
    return json.dumps(usual | figures) + "\n"


def grid(shade: int, width: int = 280, height: int = 56) -> Image.Image:
    return Image.fromarray(np.full((height, width), shade, np.uint8))


def make_run(folder: Path, about: dict[str, Any] = ABOUT, stats: str = "", samples: tuple[int, ...] = ()) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(about))
    if stats:
        (folder / "stats.jsonl").write_text(stats)
    for kimg in samples:
        grid(kimg % 256).save(folder / f"samples-{kimg:06d}.png")
    return folder


def keep_best(folder: Path, run: dict[str, Any]) -> None:
    metadata = {"run": json.dumps(run)}
    (folder / "best.safetensors").write_bytes(safetensors.numpy.save({"w": np.zeros(2, np.float32)}, metadata))


def report(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def full_run(folder: Path) -> Path:
    stats = [tick(10.0 * k, augment_p=k / 100, r1=0.1) for k in range(1, 7)]
    stats[2] = tick(30, augment_p=0.03, r1=0.1, warning="diversity is low")
    make_run(folder, stats="".join(stats), samples=(20, 40, 60))
    keep_best(folder, ABOUT | {"kimg": 40.0, "quality": 0.0244})
    return folder


def test_a_page_shows_what_the_run_did(tmp_path: Path) -> None:
    page = report(full_run(tmp_path / "my run"))
    assert page.text("h1") == "Training of cgan_28"
    facts = page.text("dl")
    for fact in ("60 of 100 kimg, not finished", "1 h 00 min", "16.7 images/s", "quality 0.0244 at 40 kimg"):
        assert fact in facts
    assert "1,234 images of 28x28 pixels, grey" in facts
    assert page.charts() == [
        "discriminator_loss generator_loss",
        "real_accuracy fake_accuracy",
        "quality",
        "diversity",
        "augment_p",
        "images_per_second",
        "r1",
    ]
    data = page.data()
    assert data["kimg"] == [10, 20, 30, 40, 50, 60]
    assert data["best"] == {"kimg": 40, "quality": 0.0244}
    assert data["charts"][1]["guides"][0][0] == 0.5
    assert [at for at, _ in data["charts"][3]["guides"]] == [0.5, 1]
    assert "30 kimg: diversity is low" in page.text("section", class_="warnings")
    rows = dict(re.findall(r"<th scope='row'>(.*?)</th><td>(.*?)</td>", (tmp_path / "my run/report.html").read_text()))
    assert rows | {"z_dim": "64", "loss": "hinge", "seed": "3", "data": "sha256:abcd"} == rows
    assert page.text("pre") == "ganrt export 'my run' --out 'my run.onnx'"


def test_samples_are_embedded_in_order_with_their_rows_named(tmp_path: Path) -> None:
    page = report(full_run(tmp_path / "run"))
    images = page.images()
    assert [image["data-when"] for image in images] == ["20 kimg", "40 kimg (nearest to the best)", "60 kimg"]
    assert ["hidden" in image for image in images] == [True, True, False]
    assert all((image["src"] or "").startswith("data:image/png;base64,") and image["alt"] for image in images)
    assert (images[0]["width"], images[0]["style"]) == ("280", "width:560px")
    assert page.text("ol", class_="rows") == "TrouserBag"
    [(slider, _)] = page.all("input")
    assert (slider["type"], slider["max"], slider["aria-label"]) == ("range", "3", "Sample grid")


@pytest.mark.parametrize(
    "about",
    [
        ABOUT | {"class_names": ["a", "b", "c"]},
        ABOUT | {"class_names": ["all"]},
        ABOUT | {"class_names": []},
        ABOUT | {"kind": "image-to-image"},
    ],
)
def test_rows_are_not_named_where_they_are_no_classes(tmp_path: Path, about: dict[str, Any]) -> None:
    page = report(make_run(tmp_path / "run", about, samples=(1,)))
    assert not page.all("ol", class_="rows")
    assert len(page.images()) == 1


def test_nothing_is_loaded_and_nothing_of_the_machine_is_told(tmp_path: Path) -> None:
    about = ABOUT | {"source": "/home/someone/secret/data.zip", "log": ["see /srv/secret/x.log", "C:\\secret\\y"]}
    folder = make_run(tmp_path / "deep" / "run", about, tick(1, warning=f"no space in {tmp_path}/deep"), (1,))
    page, text = report(folder), (folder / "report.html").read_text()
    assert not re.search(r"(?:src|href|action)\s*=\s*['\"](?!data:)|url\(|@import|\bimport\b|fetch\(", text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    for word in (str(tmp_path), "secret", "/home", f"/{getpass.getuser()}/", socket.gethostname()):
        assert word not in text
    assert "data.zip" in text
    [policy] = [found["content"] for found, _ in page.all("meta") if "http-equiv" in found]
    assert (policy or "").startswith("default-src 'none'; img-src data:;")


EVIL = "</script><script>alert(1)</script><!--\u2028\"'&\ud800<b onclick=x>@@data@@"


def test_no_text_of_a_file_becomes_markup_or_script(tmp_path: Path) -> None:
    about = ABOUT | {
        "recipe": RECIPE | {"name": EVIL, EVIL: [EVIL, {EVIL: EVIL}]},
        "class_names": [EVIL, "b"],
        EVIL: EVIL,
    }
    folder = make_run(tmp_path / "a<b>&'\"", about, tick(1, warning=EVIL, **{EVIL: 1.0, f"{EVIL}2": math.nan}), (1,))
    page = report(folder)
    plain = report(make_run(tmp_path / "plain", ABOUT, tick(1), (1,)))
    assert len(page.all("script")) == len(plain.all("script")) == 2
    assert not page.all("b", onclick="x")
    assert not any(name.startswith("on") for _, found, _ in page.elements for name in found)
    seen = EVIL.replace("\ud800", "?")
    assert page.text("h1") == " ".join(f"Training of {seen}".split())
    assert seen in [found["data-figures"] for found, _ in page.all("figure", class_="chart")]
    text = (folder / "report.html").read_text(encoding="utf-8")
    embedded = text.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(embedded)
    assert seen in [series["key"] for chart in json.loads(embedded)["charts"] for series in chart["series"]]


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run"))
    assert "0 of 100 kimg, at its beginning" in page.text("dl")
    assert (page.charts(), page.images(), page.data()) == ([], [], {"kimg": [], "best": None, "charts": []})
    assert not page.all("section", class_="warnings")
    nothing = report(make_run(tmp_path / "bare", {"recipe": {"name": "x"}}))
    assert nothing.text("h1") == "Training of x"


@pytest.mark.parametrize("end", ['{"step": 3, "kimg": 3', "\0\0\0", '{"step": 3, "warning": "\u2028', "{}", "[1]", "7"])
def test_a_line_that_is_being_written_is_ignored(tmp_path: Path, end: str) -> None:
    page = report(make_run(tmp_path / "run", stats=tick(1) + tick(2) + end))
    assert page.data()["kimg"] == [1, 2]
    assert not page.all("section", class_="warnings")


def test_lines_that_are_no_ticks_in_between_are_told_of(tmp_path: Path) -> None:
    stats = tick(1) + "[" * 100_000 + "\n{]\n" + tick(2) + tick(1.5) + tick(2, quality=0.125)
    page = report(make_run(tmp_path / "run", stats=stats))
    assert page.data()["kimg"] == [1, 1.5, 2]
    assert page.data()["charts"][2]["series"][0]["values"][-1] == 0.125
    assert "lines that are no ticks, 2 of them" in page.text("section", class_="warnings")


def test_figures_that_are_not_finite_are_gaps_and_warnings(tmp_path: Path) -> None:
    spoilt = tick(2, generator_loss=math.nan, quality=math.inf, r1=10**400, cycle_loss=-math.inf)
    page = report(make_run(tmp_path / "run", stats=tick(1) + spoilt + tick(3)))
    values = {series["key"]: series["values"] for chart in page.data()["charts"] for series in chart["series"]}
    assert values["generator_loss"] == [0.4, None, 0.4]
    assert values["r1"] == values["cycle_loss"] == [None, None, None]
    warned = page.text("section", class_="warnings")
    for key in ("generator_loss", "quality", "r1", "cycle_loss"):
        assert f"2 kimg: {key} is not a finite number." in warned


def test_figures_that_nobody_foresaw_have_charts(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", stats=tick(1) + tick(2, cycle_loss=1.5, text="x", flag=True, none=None)))
    assert page.charts()[-2:] == ["images_per_second", "cycle_loss"]
    chart = page.data()["charts"][-1]
    assert (chart["title"], chart["series"][0]["values"]) == ("Cycle loss", [None, 1.5])


def test_a_warning_that_goes_on_is_listed_once(tmp_path: Path) -> None:
    lines = [tick(k, warning="collapse") for k in (1, 2, 3)] + [tick(k, warning=f"number {k}") for k in range(4, 20)]
    text = report(make_run(tmp_path / "run", stats="".join(lines))).text("section", class_="warnings")
    assert text.count("collapse") == 1
    assert "1 to 3 kimg (3 ticks): collapse" in text
    assert "7 more" in text


def test_forty_grids_of_many_with_the_first_the_last_and_the_best(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", samples=tuple(range(10, 1010, 10)))
    plain = [image["data-when"] for image in report(folder).images()]
    assert (len(plain), plain[0], plain[-1]) == (40, "10 kimg", "1,000 kimg")
    for kimg in (13.0, 26.0, 555.0, 989.0):
        keep_best(folder, {"kimg": kimg})
        page = report(folder)
        images = [image["data-when"] or "" for image in page.images()]
        assert (len(images), images[-1]) == (40, "1,000 kimg")
        assert images[0].startswith("10 kimg")
        [best] = [re.match(r"\d+", image) for image in images if "nearest" in image]
        assert best and abs(int(best[0]) - kimg) <= 5
        assert "40 of 100 grids" in (folder / "report.html").read_text()


def test_files_that_are_no_whole_grids_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", samples=(1, 2))
    whole = (folder / "samples-000002.png").read_bytes()
    (folder / "samples-000002.png").write_bytes(whole[: len(whole) // 2])
    (folder / "samples-000003.png").write_bytes(b"")
    (folder / "samples-000004.png").mkdir()
    (folder / "samples-latest.png").write_bytes(whole)
    (folder / "best.safetensors").write_bytes(b"\0" * 20)
    page = report(folder)
    assert [image["data-when"] for image in page.images()] == ["1 kimg"]
    assert "best.safetensors" in page.text("section", class_="warnings")


def test_large_grids_are_reduced(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    noise = np.random.default_rng(0).integers(0, 256, (1200, 600, 3), np.uint8)
    Image.fromarray(noise).save(folder / "samples-000001.png")
    page = report(folder)
    [image] = page.images()
    assert (image["src"] or "").startswith("data:image/webp;base64,")
    assert (image["width"], image["height"], image["class"]) == ("600", "1200", "fine")
    assert (folder / "report.html").stat().st_size < (folder / "samples-000001.png").stat().st_size / 2


def test_the_same_files_make_the_same_page_and_it_replaces_the_old_one(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "run")
    before = sorted(path.name for path in folder.iterdir())
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "report.html"])
    (folder / "stats.jsonl").write_text(tick(100))
    assert "100 of 100 kimg, finished" in report(folder).text("dl")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        '{"recipe": 1}',
        '{"recipe": {}}',
        '{"recipe": {"name": "x"}, "class_names": [1]}',
        '{"recipe": {"name": "x"}, "deep": ' + 900 * "[" + 900 * "]" + "}",
    ],
)
def test_a_folder_without_a_valid_recipe_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(TrainingError, match=r"recipe\.json"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "report.html").mkdir()
    with pytest.raises(StorageError):
        write_report(folder)
    assert not (folder / "report.html.part").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_draws_the_curves_and_moves_through_the_samples(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "run")
    with open(folder / "stats.jsonl", "a") as file:  # a gap, a lone point, constant and extreme values
        file.write(tick(70, quality=math.nan) + tick(80, quality=1e-9, odd=1e29, **{EVIL: 0.0}) + '{"cut')
    address = write_report(folder).as_uri()
    assert CHROMIUM
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --disable-sync"
    )
    more = "--disable-background-networking --disable-component-update --enable-logging=stderr --v=0 --dump-dom"
    command = [CHROMIUM, *options.split(), *more.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*command, f"{address}#sample=2"], capture_output=True, text=True, timeout=60)
    assert "CONSOLE" not in done.stderr
    page = Page(done.stdout)
    shown = [image["data-when"] for image in page.images() if "hidden" not in image]
    assert shown == ["40 kimg (nearest to the best)"]
    assert page.text("output") == "40 kimg (nearest to the best)"
    plots = page.all("svg", role="slider")
    assert len(plots) == len(page.charts()) == 9
    numbers = [value for tag, found, _ in page.elements if tag != "img" for value in found.values() if value]
    assert not [value for value in numbers if "NaN" in value or "Infinity" in value or "undefined" in value]
    losses = plots[0][0]
    assert losses["aria-label"] == "Losses, by kimg"
    assert losses["aria-valuetext"] == "at 80 kimg, discriminator 1.1, generator 0.4"
    curves = [found["d"] or "" for found, _ in page.all("path") if "series" in (found["class"] or "")]
    assert len(curves) == 11
    assert (curves[0].count("L"), curves[4].count("M"), curves[4].count("L")) == (7, 2, 5)
    assert len(page.all("path", class_="diamond")) == 1
    assert len(page.all("line", class_="best")) == 9
