"""The emoji benchmark: what it makes of packages, and its figures on images whose figures are known."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import emoji
from ganrt.errors import UsageError
from tests.models import tiny_translator

TONES = {"1F3FB": "1f3fb", "1F3FC": "1f3fc", "1F3FF": "1f3ff"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    return _prepared(tmp_path_factory.mktemp("emoji"))


def test_train_and_test_share_no_emoji_and_the_two_train_folders_share_none(
    prepared: tuple[dict[str, Any], Path],
) -> None:
    _, data = prepared
    names = {place: set(_names(data / place)) for place in ("train/google", "train/twitter", "test/google")}
    families = [{emoji.family_of(name) for name in group} for group in names.values()]
    assert all(families) and sum(map(len, families)) == len(set.union(*families))
    assert names["test/google"] == set(_names(data / "test/twitter"))
    assert len(families[2]) < sum(map(len, families)) / 3


def test_an_emoji_has_its_neutral_image_and_one_skin_tone(prepared: tuple[dict[str, Any], Path]) -> None:
    _, data = prepared
    everything = {name for place in ("train/google", "train/twitter", "test/google") for name in _names(data / place)}
    waving = [name for name in everything if name.startswith("1f44b")]
    assert len(waving) == 2 and "1f44b.png" in waving


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("1f44b-1f3fd.png", "1f44b"),
        ("1f3c3-1f3fb-200d-2640-fe0f-200d-27a1-fe0f.png", "1f3c3"),
        ("1f469-1f3ff-200d-1f680.png", "1f680"),
        ("1f468-200d-1f469-200d-1f466.png", "people"),
        ("0023-fe0f-20e3.png", "0023-20e3"),
    ],
)
def test_variants_belong_to_the_family_of_their_emoji(name: str, family: str) -> None:
    assert emoji.family_of(name) == family


def test_images_are_rgb_on_white_and_the_same_each_time(prepared: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    first, data = prepared
    with Image.open(next((data / "train" / "google").iterdir())) as image:
        assert image.mode == "RGB" and image.size == (64, 64)
        assert image.getpixel((0, 0)) == (255, 255, 255)  # it was transparent
    again = _prepared(tmp_path)[0]
    assert {**again, "packages": None} == {**first, "packages": None}  # whose bytes have the time in them


def test_what_one_vendor_lacks_or_draws_like_another_emoji_is_left_out(prepared: tuple[dict[str, Any], Path]) -> None:
    told, data = prepared
    kept = json.loads((data / emoji.SPLIT).read_text())["family"]
    assert "1f9ff.png" not in kept  # twitter's package has none
    assert "1f1e6-1f1e8.png" in kept and "1f1e6-1f1ed.png" not in kept  # the second flag looks like the first
    assert sum(told["families"].values()) == len(set(kept.values()))


def test_only_plain_members_of_the_names_looked_for_are_read(tmp_path: Path) -> None:
    """Links, other folders and names that lead elsewhere are passed over, and nothing is written beside --out."""
    evil = {"../../evil.png": b"x", "package/img/google/64/../../../../evil.png": b"x", "/tmp/emoji-evil.png": b"x"}
    _, data = _prepared(tmp_path, extra=evil, link="package/img/google/64/2b50.png")
    written = [*tmp_path.rglob("*evil*"), *(above / "evil.png" for above in tmp_path.parents)]
    assert not [path for path in (*written, Path("/tmp/emoji-evil.png")) if path.exists()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "google.tgz", "twitter.tgz"]
    assert "2b50.png" not in json.loads((data / emoji.SPLIT).read_text())["family"]


def test_what_cannot_be_used_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no emoji.json"):
        emoji.read_package(_package(tmp_path, "google"), "twitter")
    with pytest.raises(UsageError, match="2b50.png has"):
        large = {"package/img/google/64/2b50.png": b"\0" * (emoji.MAX_IMAGE + 1)}
        emoji.read_package(_package(tmp_path, "google", extra=large), "google")
    (tmp_path / "broken.tgz").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="broken.tgz"):
        emoji.read_package(tmp_path / "broken.tgz", "google")
    with pytest.raises(UsageError, match="is there already"):
        emoji.prepare({}, tmp_path)
    with pytest.raises(UsageError, match="nothing to measure"):
        emoji.measure(tmp_path)
    with pytest.raises(UsageError, match="that `prepare` made"):
        emoji.measure(tmp_path, upscale=tmp_path / "x.onnx")


def test_psnr_gain_and_interval_of_known_errors() -> None:
    truth = np.full((4, 8, 8, 3), 100, np.uint8)
    made = {"ours": truth + 1, "theirs": truth + np.array([10, 10, 10, 1], np.uint8)[:, None, None, None]}
    rows = emoji.compare(truth, made, ["a", "a", "b", "c"])
    assert rows["ours"] == {"mean": 48.131, "of_mean_error": 48.131}
    assert rows["theirs"]["mean"] == pytest.approx(48.131 - 15, abs=0.001)
    assert rows["theirs"]["of_mean_error"] == pytest.approx(10 * np.log10(255**2 / 75.25), abs=0.001)
    assert rows["theirs"]["gain"] == 15 and rows["theirs"]["better"] == 0.75
    low, high = rows["theirs"]["interval"]
    assert low == 0 and high == 20  # all draws of family c alone, or none of it
    assert float(emoji.psnr(np.zeros(()))) == 100


def test_colours_off_does_not_mind_where_a_colour_is() -> None:
    truth = np.zeros((1, 8, 8, 3), np.uint8)
    truth[:, :4] = 255
    assert emoji.colours_off(truth[:, ::-1], truth) == 0
    assert emoji.colours_off(np.zeros_like(truth), truth) == 0.5


def test_measuring_exported_networks(
    prepared: tuple[dict[str, Any], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, data = prepared
    monkeypatch.setattr(emoji, "RESAMPLES", 100)
    (tmp_path / "same.onnx").write_bytes(tiny_translator(width=64, height=64))
    (tmp_path / "larger.onnx").write_bytes(tiny_translator(scale=2, dynamic=True))
    words = f"measure --data {data} --translate {tmp_path}/same.onnx --back {tmp_path}/same.onnx"
    words += f" --upscale {tmp_path}/larger.onnx --json {tmp_path}/f.json --grid {tmp_path}/grid.png"
    assert emoji.main(words.split()) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["command"] == f"python -m benchmarks.emoji {words}"
    count = len(_names(data / "test/google"))
    assert figures["test_images"] == count and figures["test_families"] <= count
    for what in ("google to twitter", "twitter to google"):
        rows = figures[what]["rows"]
        assert rows["untranslated"]["gain"] == pytest.approx(
            rows["translated"]["mean"] - rows["untranslated"]["mean"], abs=0.002
        )
    assert set(figures["google, halved and enlarged"]["rows"]) == {"enlarged", "Lanczos", "Bicubic", "Bilinear"}
    shown = capsys.readouterr().out
    assert "untranslated, blurred" in shown and "twitter, halved and enlarged" in shown
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (64 * min(count, emoji.GRID_COLUMNS), 64 * 14)
    assert emoji.main(f"measure --data {data} --translate {tmp_path}/larger.onnx".split()) == 2
    assert "128x128" in capsys.readouterr().err


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _prepared(folder: Path, **google: Any) -> tuple[dict[str, Any], Path]:
    packages = {"google": _package(folder, "google", **google), "twitter": _package(folder, "twitter")}
    return emoji.prepare(packages, folder / "data"), folder / "data"


def _package(folder: Path, vendor: str, extra: dict[str, bytes] | None = None, link: str = "") -> Path:
    """A package with forty emoji of a code point, one with skin tones, two flags alike, and a star if it is no link."""
    points = [f"1f6{number:02x}" for number in range(40)] + ["1f44b", "1f1e6-1f1e8", "1f1e6-1f1ed", "1f9ff", "2b50"]
    listing = []
    files: dict[str, bytes] = dict(extra or {})
    for point in points:
        entry: dict[str, Any] = {"image": f"{point}.png"}
        names = [point]
        if point == "1f44b":
            entry["skin_variations"] = {tone: {"image": f"{point}-{small}.png"} for tone, small in TONES.items()}
            names += [f"{point}-{small}" for small in TONES.values()]
        listing.append(entry)
        for name in names:
            path = f"package/img/{vendor}/64/{name}.png"
            if path != link and not (vendor == "twitter" and name == "1f9ff"):
                files.setdefault(path, _picture("1f1e6" if name.startswith("1f1e6") else name, vendor))
    files["package/emoji.json"] = json.dumps(listing).encode()
    package = folder / f"{vendor}.tgz"
    with tarfile.open(package, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return package


def _picture(name: str, vendor: str) -> bytes:
    """A square on nothing, with a colour of its own."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    colour = np.frombuffer(f"{name}{vendor}".encode(), np.uint8).astype(np.int64)
    pixels[16:48, 16:48] = [*(int((colour * np.arange(1, len(colour) + 1) ** k).sum() % 256) for k in (1, 2, 3)), 255]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
