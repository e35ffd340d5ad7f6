"""Do the image-to-image recipes work? The same emoji in two vendors' styles: hidden ground truth for both of them.

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
    python -m benchmarks.emoji prepare --google emoji-datasource-google-16.0.0.tgz \\
        --twitter emoji-datasource-twitter-16.0.0.tgz --out emoji
    python -m benchmarks.emoji measure --data emoji --translate emoji.google-to-twitter.onnx \\
        --back emoji.twitter-to-google.onnx --upscale larger.onnx --json emoji.json --grid emoji.png

``prepare`` writes ``train/<vendor>``, in which no emoji is in both folders, and ``test/<vendor>``, whose names match.
``measure`` compares what exported networks make of test images with what the other vendor drew, or with the image
before it was halved. docs/emoji.md says how the networks are trained and reads the figures.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shlex
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

import ganrt
from ganrt.errors import GanrtError, UsageError

VENDORS = ("google", "twitter")
SIDE = 64
HELD_OUT = 0.15  # share of the families
SPLIT = "split.json"
MAX_IMAGE, MAX_LIST = 1 << 20, 64 << 20  # bytes of a member that is read
BEST_PSNR = 100.0  # dB, of images without a difference
RESAMPLES, BATCH = 10_000, 64
BLUR = 4  # pixels, the deviation of a Gaussian
GRID_COLUMNS = 8

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]

_IMAGE_NAME = re.compile(r"[0-9a-f]{2,6}(-[0-9a-f]{2,6})*\.png")
# Code points that make variants of an emoji: skin tones; joiner and variation selector; female, male, to the right; and
# man, woman, person, boy, girl, child, who stand before a role ("woman, joiner, rocket": an astronaut).
_VARIANTS = {f"1f3f{tone}" for tone in "bcdef"} | {"200d", "fe0f", "2640", "2642", "27a1"}
_PEOPLE = {"1f468", "1f469", "1f9d1", "1f466", "1f467", "1f9d2"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emoji", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare", help="emoji of two npm packages as folders to train and to test with")
    for vendor in VENDORS:
        preparing.add_argument(f"--{vendor}", type=Path, required=True, help=f"emoji-datasource-{vendor}'s .tgz")
    preparing.add_argument("--out", type=Path, required=True, help="folder to make")
    measuring = commands.add_parser("measure", help="PSNR of exported networks on held-out emoji")
    measuring.add_argument("--data", type=Path, required=True, help="folder that prepare made")
    measuring.add_argument("--translate", type=Path, help="the .onnx file from google to twitter")
    measuring.add_argument("--back", type=Path, help="the .onnx file from twitter to google")
    measuring.add_argument("--upscale", type=Path, help="the .onnx file that doubles the sides")
    measuring.add_argument("--json", type=Path, help="file for the figures")
    measuring.add_argument("--grid", type=Path, help="file for a picture of some of the images")
    options = parser.parse_args(arguments)
    try:
        if options.command == "prepare":
            told = prepare({"google": options.google, "twitter": options.twitter}, options.out)
            print(json.dumps(told, indent=1))
            return 0
        figures = measure(options.data, options.translate, options.back, options.upscale, options.grid)
    except GanrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    words = sys.argv[1:] if arguments is None else arguments
    figures = {"command": shlex.join(["python", "-m", "benchmarks.emoji", *words])} | figures
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(table(figures))
    return 0


# --- the data


def prepare(packages: dict[str, Path], out: Path) -> dict[str, Any]:
    """Writes the folders from both vendors' packages and returns what they hold.

    Raises UsageError when a package is not one, or when ``out`` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already", "Name another --out, or remove it.")
    read = {vendor: read_package(path, vendor) for vendor, path in packages.items()}
    pictures = {vendor: images for vendor, (_, images) in read.items()}
    names = [name for name in wanted(read["google"][0]) if all(name in images for images in pictures.values())]
    if not names:
        raise UsageError("no emoji that both packages have", "Expected emoji-datasource-google and -twitter.")
    names = without_doubles(names, list(pictures.values()))
    families = {name: family_of(name) for name in sorted(names)}
    counts: dict[str, int] = {}
    state = hashlib.sha256()
    for vendor in VENDORS:
        for name, family in families.items():
            place = place_of(family)
            if place not in ("test", f"train/{vendor}"):
                continue
            folder = f"test/{vendor}" if place == "test" else place
            (out / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[vendor][name]).save(out / folder / name)
            counts[folder] = counts.get(folder, 0) + 1
            state.update(f"{folder}/{name}\n".encode() + pictures[vendor][name].tobytes())
    about = {
        "packages": {vendor: f"sha256:{_digest(path)}" for vendor, path in packages.items()},
        "images": counts,
        "families": {
            place: len({f for f in families.values() if place_of(f) == place})
            for place in sorted({place_of(f) for f in families.values()})
        },
        "pixels": f"sha256:{state.hexdigest()}",
    }
    (out / SPLIT).write_text(json.dumps(about | {"family": families}, indent=1) + "\n", encoding="utf-8")
    return about


def read_package(path: Path, vendor: str) -> tuple[list[Any], dict[str, Images]]:
    """``emoji.json`` and the images by name, uint8 [64, 64, 3], of a package. Nothing is extracted.

    Only regular members are read, of the very names that are looked for, and none that is large. Raises UsageError.
    """
    emoji: list[Any] | None = None
    images: dict[str, Images] = {}
    folder = f"package/img/{vendor}/{SIDE}/"
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = member.name.removeprefix(folder)
                listing = member.name == "package/emoji.json"
                picture = name != member.name and _IMAGE_NAME.fullmatch(name) is not None
                if not member.isreg() or not (listing or picture):
                    continue
                if member.size > (MAX_LIST if listing else MAX_IMAGE):
                    raise UsageError(f"{path}: {member.name} has {member.size:,} bytes", "That is no emoji's size.")
                file = archive.extractfile(member)
                assert file is not None
                if listing:
                    emoji = json.loads(file.read())
                else:
                    images[name] = _on_white(file.read())
    except (OSError, EOFError, tarfile.TarError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: {error}", f"Expected emoji-datasource-{vendor}'s .tgz, from npm pack.") from error
    if not isinstance(emoji, list) or not images:
        raise UsageError(f"{path} has no emoji.json with images in img/{vendor}", "Is it another vendor's package?")
    return emoji, images


def _on_white(data: bytes) -> Images:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.size != (SIDE, SIDE):
            raise ValueError(f"an image of {image.width}x{image.height} pixels")
        picture = Image.new("RGBA", image.size, "white")
        picture.alpha_composite(image.convert("RGBA"))
    return np.asarray(picture.convert("RGB"))


def wanted(emoji: Sequence[Any]) -> Iterator[str]:
    """Names of image files: of each emoji and, where it has skin tones, of one beside it; which, its name decides."""
    for entry in emoji:
        yield entry["image"]
        tones = sorted(entry.get("skin_variations", {}).items())
        if tones:
            yield tones[_hashed(entry["image"]) % len(tones)][1]["image"]


def family_of(name: str) -> str:
    """What an emoji's variants have in common, from the name of its image: code points without tones and genders."""
    points = [point for point in name.removesuffix(".png").split("-") if point not in _VARIANTS]
    return "-".join(point for point in points if point not in _PEOPLE) or "people"


def without_doubles(names: Sequence[str], pictures: Sequence[dict[str, Images]]) -> list[str]:
    """The names whose picture no earlier name has, by any vendor: some flags and families are drawn alike."""
    seen: list[set[bytes]] = [set() for _ in pictures]
    kept = []
    for name in names:
        drawn = [images[name].tobytes() for images in pictures]
        if not any(picture in before for picture, before in zip(drawn, seen, strict=True)):
            kept.append(name)
        for picture, before in zip(drawn, seen, strict=True):
            before.add(picture)
    return kept


def place_of(family: str) -> str:
    """Where a family goes, decided by its name alone: ``test``, ``train/google`` or ``train/twitter``."""
    share = _hashed(f"split {family}") / 2**64
    if share < HELD_OUT:
        return "test"
    return f"train/{VENDORS[_hashed(f'half {family}') % 2]}"


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the figures


def measure(
    data: Path,
    translate: Path | None = None,
    back: Path | None = None,
    upscale: Path | None = None,
    grid: Path | None = None,
) -> dict[str, Any]:
    """What exported networks make of test images, against what it should be; and a picture of some of them.

    Raises UsageError when ``data`` is not what ``prepare`` made, or a network makes images of another size.
    """
    if not (translate or back or upscale):
        raise UsageError("nothing to measure", "Name --translate, --back or --upscale.")
    about, families, images = read_test(data)
    figures: dict[str, Any] = {"data": about, "test_images": len(families), "test_families": len(set(families))}
    rows: list[Images] = []
    for source, target, model in (("google", "twitter", translate), ("twitter", "google", back)):
        if model is None:
            continue
        network = ganrt.load_translator(str(model))
        made = {"translated": _made(network, images[source], images[target].shape)}
        made |= {"untranslated": images[source], "untranslated, blurred": _each(images[source], _blurred)}
        judged = compare(images[target], made, families)
        for name, row in judged.items():
            row["colours_off"] = round(colours_off(made[name], images[target]), 3)
        figures[f"{source} to {target}"] = {"model": _about(network), "rows": judged}
        rows += [images[source], made["translated"], images[target]]
    if upscale is not None:
        network = ganrt.load_translator(str(upscale))
        for vendor in VENDORS:
            original = images[vendor]
            half = _each(original, lambda picture: picture.resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC))
            made = {"enlarged": _made(network, half, original.shape)}
            for name in ("LANCZOS", "BICUBIC", "BILINEAR"):
                made[name.capitalize()] = _each(half, _enlarged(Image.Resampling[name]))
            judged = compare(original, made, families)
            figures[f"{vendor}, halved and enlarged"] = {"model": _about(network), "rows": judged}
            rows += [_each(half, _enlarged(Image.Resampling.NEAREST)), made["Lanczos"], made["enlarged"], original]
    if grid is not None:
        columns = np.linspace(0, len(families) - 1, min(GRID_COLUMNS, len(families))).round().astype(int)
        Image.fromarray(np.concatenate([np.concatenate(list(row[columns]), axis=1) for row in rows])).save(grid)
    return figures


def read_test(data: Path) -> tuple[dict[str, Any], list[str], dict[str, Images]]:
    """What ``prepare`` said, each test image's family, and both vendors' images, uint8 [N, 64, 64, 3], in pairs."""
    try:
        about = json.loads((data / SPLIT).read_text(encoding="utf-8"))
        family = about.pop("family")
        names = sorted(path.name for path in (data / "test" / "google").iterdir())
        if names != sorted(path.name for path in (data / "test" / "twitter").iterdir()):
            raise ValueError("its vendors' test images are not the same emoji")
        families = [family[name] for name in names]
        images = {}
        for vendor in VENDORS:
            with_files = [Image.open(data / "test" / vendor / name).convert("RGB") for name in names]
            images[vendor] = np.stack([np.asarray(picture) for picture in with_files])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{data}: {error!r}", "Expected a folder that `prepare` made.") from error
    return about, families, images


def compare(truth: Images, made: dict[str, Images], families: Sequence[str]) -> dict[str, dict[str, Any]]:
    """PSNR of each set of images with ``truth``, and what the first gains over each of the others.

    ``mean`` is that of the images' PSNR, ``of_mean_error`` the PSNR of the mean squared error. ``gain`` is the mean
    difference of the images' PSNR, ``interval`` its 95 % interval by bootstrap over families, ``better`` the share of
    images in which the first is ahead.
    """
    errors = {name: squared_errors(images, truth) for name, images in made.items()}
    first, *others = made
    rows: dict[str, dict[str, Any]] = {
        name: {"mean": _rounded(psnr(error).mean()), "of_mean_error": _rounded(psnr(error.mean()))}
        for name, error in errors.items()
    }
    for name in others:
        gain = psnr(errors[first]) - psnr(errors[name])
        low, high = interval(gain, families)
        rows[name] |= {"gain": _rounded(gain.mean()), "interval": [_rounded(low), _rounded(high)]}
        rows[name]["better"] = round(float((gain > 0).mean()), 3)
    return rows


def squared_errors(images: Images, truth: Images) -> Floats:
    """Mean squared difference of each image's uint8 values: float [N]."""
    difference = images.astype(np.float64) - truth.astype(np.float64)
    return np.asarray(np.square(difference).mean(axis=(1, 2, 3)))


def psnr(error: Floats | np.floating[Any]) -> Floats:
    """Peak signal-to-noise ratio in dB, 100 at most."""
    least = 255.0**2 / 10 ** (BEST_PSNR / 10)
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(error, least)))


def interval(values: Floats, families: Sequence[str]) -> tuple[float, float]:
    """The 95 % interval of the mean by bootstrap. Families are drawn, not images: variants of an emoji go together."""
    _, members = np.unique(np.asarray(families), return_inverse=True)
    sums, counts = np.bincount(members, values), np.bincount(members)
    drawn = np.random.default_rng(0).integers(0, len(counts), (RESAMPLES, len(counts)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def colours_off(images: Images, truth: Images) -> float:
    """The share of all pixels that would need another colour for both sets to have the same palette: 0 to 1.

    Colours are told apart in eight steps of red, green and blue each; where in an image they are does not matter.
    """
    shares = []
    for pixels in (images, truth):
        steps = (pixels.reshape(-1, 3) // 32).astype(np.int64)
        shares.append(np.bincount(steps @ [64, 8, 1], minlength=512) / len(steps))
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def table(figures: dict[str, Any]) -> str:
    """The figures to read."""
    lines = [figures["command"], f"{figures['test_images']} test images of {figures['test_families']} families"]
    for what, told in figures.items():
        if not isinstance(told, dict) or "rows" not in told:
            continue
        lines += ["", f"{what:28} PSNR, dB   of mean error   ours gains (95 %)        better in   colours off"]
        for name, row in told["rows"].items():
            gain = better = ""
            if "gain" in row:
                gain = f"{row['gain']:+.2f} ({row['interval'][0]:+.2f} to {row['interval'][1]:+.2f})"
                better = f"{row['better']:.1%}"
            off = f"{row['colours_off']:.3f}" if "colours_off" in row else ""
            line = f"  {name:26} {row['mean']:8.2f}   {row['of_mean_error']:13.2f}   {gain:23}  {better:>9}   {off:>11}"
            lines.append(line.rstrip())
    return "\n".join(lines)


def _made(network: ganrt.Translator, images: Images, shape: tuple[int, ...]) -> Images:
    made = np.concatenate([network(images[first : first + BATCH]) for first in range(0, len(images), BATCH)])
    if made.shape != shape:
        raise UsageError(
            f"{network.card.name} makes images of {made.shape[2]}x{made.shape[1]}, {made.shape[3]} channels",
            f"Expected {shape[2]}x{shape[1]}, {shape[3]} channels.",
        )
    return made


def _about(network: ganrt.Translator) -> dict[str, Any]:
    card = network.card
    return {"name": card.name, "recipe": card.recipe, "kimg": card.kimg, "snapshot_digest": card.snapshot_digest}


def _each(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def _blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(BLUR))


def _enlarged(how: Image.Resampling) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: picture.resize((SIDE, SIDE), how)


def _rounded(value: Any) -> float:
    return round(float(value), 3)


if __name__ == "__main__":
    sys.exit(main())
