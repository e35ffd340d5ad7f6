"""The dataset card that is written beside the images."""

from __future__ import annotations

import re
import shlex

from ganrt.layouts import layout_of
from ganrt.shards import DatasetPlan, Plan, class_folders
from ganrt.translation_plan import TranslationPlan


def readme(parts: list[tuple[DatasetPlan, int]]) -> bytes:
    """README.md of a complete dataset: what it is, how to read it, how to make it again.

    Its head is what HF ``datasets`` reads on ``load_dataset(folder)``.
    """
    first = parts[0][0]
    total = sum(n for _, n in parts)
    names = sorted({plan.model for plan, _ in parts})
    lines = [
        *_head(parts, total),
        f"# {total:,} synthetic images by {', '.join(_plain(name) for name in names)}",
        "",
        "Every image here was made of another image by a generative adversarial network, which made up what it adds."
        if isinstance(first, TranslationPlan)
        else "Every image here was made by a generative adversarial network. None is a photograph or a scan.",
        "",
    ]
    for plan, n in parts:
        lines += _part(plan, n)
    lines += _reading(first)
    lines += [
        "## Files",
        "",
        "`ganrt.json` says how each sample was made; `ganrt*.ledger` holds a digest of every file. "
        "`ganrt verify DATASET` compares them with the files.",
        "",
    ]
    return "\n".join(lines).encode()


def _head(parts: list[tuple[DatasetPlan, int]], total: int) -> list[str]:
    first = parts[0][0]
    sizes = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    size = next((name for limit, name in sizes if total < limit), "n>1M")
    lines = ["---", "tags:", "- synthetic", "- gan", "- ganrt"]
    if any(plan.labelled for plan, _ in parts):
        lines += ["task_categories:", "- image-classification"]
    lines += ["size_categories:", f"- {size}"]
    if first.layout != "npy":
        patterns = sorted({layout_of(plan).pattern() for plan, _ in parts})
        lines += ["configs:", "- config_name: default", "  data_files:", "  - split: train", "    path:"]
        lines += [f'    - "{pattern}"' for pattern in patterns]
        if first.layout == "folder":
            lines.append(f"  drop_labels: {'false' if first.labelled else 'true'}")
    return [*lines, "---", ""]


def _part(plan: DatasetPlan, n: int) -> list[str]:
    lines = [f"## Part {plan.part}", ""] if plan.part else []
    lines.append(f"- generator: {_plain(plan.model)} (SHA-256 of its ONNX file {plan.model_digest})")
    if isinstance(plan, TranslationPlan):
        lines += _of_images(plan)
    elif isinstance(plan, Plan):
        lines += _of_latents(plan, n)
    if plan.mark:
        lines.append("- each image carries the mark `DigitalSourceType: trainedAlgorithmicMedia`")
    lines += ["", "Made by:", "", "```", _command(plan, n), "```", ""]
    if plan.labelled:
        folders = class_folders(plan.class_names) if plan.layout == "folder" else None
        lines += ["| label | class |" + (" folder |" if folders else "") + " images |"]
        lines += ["| --- | --- |" + (" --- |" if folders else "") + " --- |"]
        for name, count in plan.per_class(n).items():
            y = plan.class_names.index(name)
            lines.append(f"| {y} | {_plain(name)} |" + (f" {_plain(folders[y])} |" if folders else "") + f" {count} |")
        lines.append("")
    return lines


def _of_latents(plan: Plan, n: int) -> list[str]:
    lines = [
        f"- samples: {plan.start} to {plan.start + n - 1} of seed {plan.seed}" if n else "- samples: none",
        f"- images: {_kind_of_images(plan.pixels, plan)}",
    ]
    if plan.latent_std != 1:
        lines.append(f"- deviation of the latents: {plan.latent_std} (1.0 is as trained)")
    if plan.psi is not None and plan.psi != 1:
        lines.append(f"- truncation psi: {plan.psi}")
    return lines


def _of_images(plan: TranslationPlan) -> list[str]:
    lines = [f"- made of: {plan.count} images (BLAKE2b of their names and contents {plan.inputs})"]
    if plan.pixels:
        lines.append(f"- images: {_kind_of_images(plan.pixels, plan)}")
    else:
        colour = "grey" if plan.channels == 1 else "RGB"
        lines.append(f"- images: of several sizes, {colour}, {plan.format}")
    if plan.scale > 1:
        lines.append(f"- scale: {plan.scale} times the sides of what they were made of")
    if plan.resize and plan.size:
        how = "the middle of them" if plan.resize == "crop" else "all of them"
        lines.append(f"- what they were made of was resized to {plan.size[0]}x{plan.size[1]}: {how}, {plan.resample}")
    if plan.tile:
        lines.append(f"- large ones were made in tiles of {plan.tile} pixels that overlap by {plan.overlap}")
    if plan.layout == "folder":
        lines.append("- each file is called as what it was made of")
    elif plan.layout == "webdataset":
        lines.append("- `source` in each `.json` is the name of what it was made of")
    return lines


def _kind_of_images(pixels: tuple[int, int, int], plan: DatasetPlan) -> str:
    height, width, channels = pixels
    colour = "grey" if channels == 1 else "RGB"
    return f"{width}x{height} pixels, {colour}" + (f", {plan.format}" if plan.format else ", uint8")


def _command(plan: DatasetPlan, n: int) -> str:
    """What makes the part again. A generator's path is not told; its name and digest are."""
    if isinstance(plan, TranslationPlan):
        words = [f"ganrt translate {_quoted(plan.model)} IMAGES DIR"]
        if plan.resize:
            words.append(f"--resize {plan.resize} --resample {plan.resample}")
        if plan.tile:
            words.append(f"--tile {plan.tile} --overlap {plan.overlap}")
        if plan.multiple > 1:
            words.append(f"--multiple {plan.multiple}")
        words.append(f"--layout {plan.layout}")
    else:
        assert isinstance(plan, Plan)
        words = _sampling(plan, n)
    if plan.format:
        words.append(f"--format {plan.format}" + (f" --quality {plan.quality}" if plan.quality else ""))
        if not plan.mark:
            words.append("--no-mark")
    words.append(f"--shard-size {plan.shard_size} --batch {plan.batch}")
    if plan.part:
        words.append(f"--part {plan.part}")
    return " ".join(words)


def _sampling(plan: Plan, n: int) -> list[str]:
    words = [f"ganrt generate --n {n} --out DIR --model {_quoted(plan.model)} --seed {plan.seed}"]
    if plan.start:
        words.append(f"--start {plan.start}")
    if plan.classes != tuple(range(len(plan.class_names))):
        words += [f"--classes {y}" for y in plan.classes]
    if plan.psi is not None and plan.psi != 1:
        words.append(f"--psi {plan.psi}")
    if plan.latent_std != 1:
        words.append(f"--latent-std {plan.latent_std}")
    if plan.size:
        words.append(f"--size {plan.size[0]}x{plan.size[1]} --resample {plan.resample}")
    words.append(f"--mode {plan.mode} --layout {plan.layout}")
    return words


def _reading(plan: DatasetPlan) -> list[str]:
    lines = ["## Reading it", "", "```python"]
    stem = f"{plan.part}-" if plan.part else ""
    if plan.layout == "folder":
        if plan.labelled:
            lines += ["torchvision.datasets.ImageFolder(DIR)                  # torchvision"]
        lines += ["datasets.load_dataset(DIR)                              # Hugging Face"]
        if plan.labelled and plan.format != "webp":
            lines += ["keras.utils.image_dataset_from_directory(DIR)           # Keras"]
    elif plan.layout == "webdataset":
        lines += [
            'webdataset.WebDataset(sorted(glob.glob(DIR + "/*.tar"))).decode("pil")   # webdataset',
            "datasets.load_dataset(DIR)                                                # Hugging Face",
        ]
    else:
        lines += [f'images = numpy.load(DIR + "/{stem}images.npy", mmap_mode="r")   # uint8 [n, H, W, C]']
        if plan.labelled:
            lines += [f'labels = numpy.load(DIR + "/{stem}labels.npy")                   # int64 [n]']
    lines += ["```", ""]
    if plan.layout == "folder" and plan.labelled:
        lines += [
            "These readers number the class folders in alphabetical order, so their numbers are not the labels of the "
            "table: go by the class names.",
            "",
        ]
    return lines


def _quoted(text: str) -> str:
    return shlex.quote(" ".join(text.split()).replace("`", "'"))


def _plain(text: str) -> str:
    """Text of a foreign card as Markdown that shows it and does nothing else."""
    shown = "".join(f"\\{c}" if c in "\\`*_{}[]<>#!|~&$:@" else c for c in " ".join(text.split()))
    return re.sub(r"(?i)\bwww\.", r"www\.", shown)  # like : and @, part of what is made a link where nobody wrote one
