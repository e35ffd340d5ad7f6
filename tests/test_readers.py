"""What others read out of a dataset: every class name that a reader gives a file is the one in the manifest."""

from __future__ import annotations

import glob
import io
import itertools
import json
import os
import re
import subprocess
import tarfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ganrt
from ganrt.layouts.webdataset import member
from tests.models import tiny_model

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CASES: dict[str, tuple[str, ...]] = {
    "ten classes": FASHION,
    "twelve numeric classes": tuple(map(str, range(12))),
    "one class": ("Sneaker",),
    "one class named test": ("test",),
    "a class named test": ("test", "other"),
    "a class named train": ("other", "train"),
    "names of splits only": ("validation", "test", "train"),
    "names that HF datasets would pass over": ("__a", "_(b", "c"),
    "names that readers sort in different ways": ("b", "A", "a10", "a2", "_x", "-y", "data", "Ünder"),
}
ALL_CASES = pytest.mark.parametrize("case", CASES)
N, START = 40, 7
TORCHVISION = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
TIMM = (".png", ".jpg", ".jpeg")
KERAS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class Made:
    """A dataset, with what its manifest says: the key of each file (``[part-]index``) → label and class name."""

    root: Path
    labels: dict[str, int | None]
    names: dict[str, str | None]

    @property
    def folders(self) -> dict[str, str]:
        """The key of each file → the folder that the design gives its class."""
        plain = {key: re.sub(r"[^A-Za-z0-9._ -]+", "_", name or "") for key, name in self.names.items()}
        return {key: re.sub(r"^__+", "_", folder) for key, folder in plain.items()}


Make = Callable[..., Made]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a dataset of a case, or of several parts of cases, once a module."""
    there: dict[Any, Made] = {}

    def made(*cases: str, layout: str = "folder", n: int = N, **options: Any) -> Made:
        key = (cases, layout, n, tuple(options.items()))
        if key not in there:
            folder = tmp_path_factory.mktemp("data")
            out = folder / "out"
            for number, case in enumerate(cases):
                model = folder / f"model{number}.onnx"
                model.write_bytes(tiny_model(class_names=CASES.get(case, ()), seed=number))
                ganrt.generate(
                    model,
                    n=n,
                    out=out,
                    layout=layout,
                    part=f"part-{number}" if len(cases) > 1 else "",
                    start=START,
                    batch=8,
                    shard_size=16,
                    device="cpu",
                    **options,
                )
            there[key] = read_manifest(out)
        return there[key]

    return made


def read_manifest(root: Path) -> Made:
    """The labels and class names of all samples, from the manifest alone."""
    manifest = json.loads((root / "ganrt.json").read_bytes())
    assert manifest["complete"]
    labels, names = {}, {}
    for part in manifest["parts"]:
        plan = part["plan"]
        for index in range(plan["start"], plan["start"] + part["images"]):
            key = f"{part['part']}-{index:08d}" if part["part"] else f"{index:08d}"
            y = plan["classes"][index % len(plan["classes"])] if plan["classes"] else None
            labels[key], names[key] = y, None if y is None else plan["class_names"][y]
    return Made(root, labels, names)


# Hugging Face datasets --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """``datasets.load_dataset`` of the split train, which must be the only one; offline, without a cache of before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        import datasets

        datasets.disable_progress_bars()

        def load(*args: Any, **options: Any) -> Any:
            found = datasets.load_dataset(*args, cache_dir=str(tmp_path_factory.mktemp("cache")), **options)
            assert list(found) == ["train"]
            return found["train"]

        yield load


def hf_folders(rows: Any) -> dict[str, str]:
    """The class name that ``datasets`` gives each file of an imagefolder."""
    import datasets

    names = rows.features["label"].names
    rows = rows.cast_column("image", datasets.Image(decode=False))
    return {Path(row["image"]["path"]).stem: names[row["label"]] for row in rows}


@ALL_CASES
def test_datasets_reads_the_class_of_every_file_of_a_folder(make: Make, load: Callable[..., Any], case: str) -> None:
    made = make(case)
    assert hf_folders(load(str(made.root))) == made.folders


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_datasets_reads_the_other_formats(make: Make, load: Callable[..., Any], format: str) -> None:
    made = make("ten classes", format=format)
    rows = load(str(made.root))
    assert hf_folders(rows) == made.folders
    assert rows[0]["image"].size == (8, 8)


@ALL_CASES
@pytest.mark.parametrize("how", ["by folder", "by files"])
def test_datasets_reads_the_class_of_every_sample_of_webdataset(
    make: Make, load: Callable[..., Any], case: str, how: str
) -> None:
    made = make(case, layout="webdataset")
    rows = load(str(made.root)) if how == "by folder" else load("webdataset", data_files=archives(made))
    assert {row["__key__"]: row["cls"] for row in rows.select_columns(["__key__", "cls"])} == made.labels
    about = {row["__key__"]: row["json"] for row in rows.select_columns(["__key__", "json"])}
    assert {key: value["class_name"] for key, value in about.items()} == made.names
    assert {key: value["index"] for key, value in about.items()} == {key: int(key) for key in made.names}


@pytest.mark.parametrize("layout", ["folder", "webdataset"])
def test_datasets_reads_images_without_classes(make: Make, load: Callable[..., Any], layout: str) -> None:
    rows = load(str(make("no classes", layout=layout).root))
    column = "image" if layout == "folder" else "png"
    assert len(rows) == N
    assert "label" not in rows.features and "cls" not in rows.features
    assert rows[0][column].size == (8, 8)


def test_datasets_shows_the_pixels_that_the_generator_made(make: Make, load: Callable[..., Any]) -> None:
    made = make("ten classes", layout="webdataset")
    wanted = ganrt.load(made.root.parent / "model0.onnx", device="cpu", batch=8).sample(N, start=START)
    rows = load(str(made.root))
    for row in rows:
        np.testing.assert_array_equal(np.asarray(row["png"]), wanted[row["json"]["index"] - START])


# webdataset and tar -----------------------------------------------------------------------------------------


def archives(made: Made) -> list[str]:
    return sorted(glob.glob(str(made.root / "*.tar")))


@ALL_CASES
def test_webdataset_reads_the_class_of_every_sample(make: Make, case: str) -> None:
    import webdataset

    made = make(case, layout="webdataset")
    samples = list(webdataset.WebDataset(archives(made), shardshuffle=False).decode("pil"))
    assert {s["__key__"]: s["cls"] for s in samples} == made.labels
    assert {s["__key__"]: s["json"]["class_name"] for s in samples} == made.names
    assert [s["__key__"] for s in samples] == sorted(made.labels)
    assert all(s["png"].size == (8, 8) for s in samples)


def test_webdataset_reads_samples_without_classes(make: Make) -> None:
    import webdataset

    made = make("no classes", layout="webdataset", format="jpeg")
    samples = list(webdataset.WebDataset(archives(made), shardshuffle=False).decode("pil"))
    assert [s["__key__"] for s in samples] == sorted(made.labels)
    assert all({"jpg", "json"} == {k for k in s if not k.startswith("__")} for s in samples)


def test_pythons_tarfile_reads_every_member_of_the_archives(make: Make) -> None:
    made = make("ten classes", layout="webdataset")
    found = []
    for path in archives(made):
        with warnings.catch_warnings(), tarfile.open(path, "r:") as archive:
            warnings.simplefilter("error")
            for member in archive:
                assert member.isreg() and member.mtime == 0 and (member.uid, member.gid) == (0, 0)
                data = archive.extractfile(member)
                assert data
                if member.name.endswith(".png"):
                    assert Image.open(io.BytesIO(data.read())).size == (8, 8)
                found.append(member.name)
    assert found == [f"{key}.{end}" for key in sorted(made.labels) for end in ("png", "cls", "json")]


FOREIGN = ("Söckchen", "靴", "T-shirt/top", 'a "quoted" one', "sock 🧦")


@pytest.mark.parametrize(("start", "n"), [(0, 101), (10**8 - 1, 5), (9_996, 9)])
@pytest.mark.parametrize("part", ["", "one-of_them"])
@pytest.mark.parametrize(("class_names", "format"), [((), "png"), (("a", "b", "c"), "jpeg"), (FOREIGN, "png")])
def test_archives_hold_exactly_the_members_that_they_should(
    start: int, n: int, part: str, class_names: tuple[str, ...], format: str, tmp_path: Path
) -> None:
    model, out, seed = tmp_path / "tiny.onnx", tmp_path / "out", 2**64 - 1
    model.write_bytes(tiny_model(class_names=class_names))
    sizes: dict[str, Any] = {"batch": 32, "shard_size": 64}
    options: dict[str, Any] = {"start": start, "seed": seed, "part": part, "format": format, "device": "cpu"}
    ganrt.generate(model, n=n, out=out, layout="webdataset", workers=3, **sizes, **options)
    ganrt.generate(model, n=n, out=tmp_path / "folder", layout="folder", workers=1, **sizes, **options)
    loose = {path.name: path.read_bytes() for path in (tmp_path / "folder").rglob("*.[pj][np]g")}
    stem, end = part and f"{part}-", "jpg" if format == "jpeg" else "png"
    indices = iter(range(start, start + n))
    for path in sorted(out.glob("*.tar")):
        wanted = bytearray()
        number = int(path.stem.removeprefix(stem))
        assert path.name == f"{stem}{number:06d}.tar"
        for index in itertools.islice(indices, (number + 1) * 64 - max(start, number * 64)):
            key = f"{stem}{index:08d}"
            about: dict[str, int | str] = {"index": index, "seed": seed}
            wanted += member(f"{key}.{end}".encode(), loose[f"{key}.{end}"])
            if class_names:
                y = index % len(class_names)
                about |= {"label": y, "class_name": class_names[y]}
                wanted += member(f"{key}.cls".encode(), str(y).encode())
            wanted += member(f"{key}.json".encode(), json.dumps(about).encode())
        assert path.read_bytes() == wanted + bytes(1024)
        with tarfile.open(path) as archive:
            for entry in archive:  # what is not its name and size is the same for all
                assert entry.isreg() and not entry.linkname and not entry.pax_headers
                told = (entry.mode, entry.uid, entry.gid, entry.mtime, entry.uname, entry.gname)
                assert told == (0o644, 0, 0, 0, "", "")
                if entry.name.endswith(".json"):
                    file = archive.extractfile(entry)
                    found = json.loads(file.read()) if file else {}
                    assert entry.name == f"{stem}{found['index']:08d}.json" and found["seed"] == seed
                    assert found.get("class_name") == (class_names[found["label"]] if class_names else None)
    assert not list(indices)


def test_a_member_is_what_pythons_tarfile_writes() -> None:
    for name, data in (("a.png", b""), ("b" * 99 + "c", b"x" * 511), ("00000000.json", b"y" * 513)):
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        theirs = entry.tobuf(tarfile.USTAR_FORMAT)
        mine = member(name.encode(), data)
        assert len(mine) % 512 == 0 and mine[512:] == data + bytes(-len(data) % 512)
        # Numbers of devices, which are none here and noughts there, are the only difference but for the checksum.
        assert mine[:148] + mine[156:329] == theirs[:148] + theirs[156:329]
        read = tarfile.TarInfo.frombuf(mine[:512], "utf-8", "strict")  # which checks the checksum
        assert (read.name, read.size, read.mode, read.type) == (name, len(data), 0o644, tarfile.REGTYPE)


def test_tar_lists_and_unpacks_the_archives_without_a_word(make: Make, tmp_path: Path) -> None:
    made = make("ten classes", layout="webdataset")
    for path in archives(made):
        listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
        unpacked = subprocess.run(["tar", "xf", path, "-C", tmp_path], capture_output=True, text=True, check=True)
        assert listed.stderr == unpacked.stderr == unpacked.stdout == ""
        with tarfile.open(path) as archive:
            assert listed.stdout.splitlines() == archive.getnames()
    labels = {path.stem: int(path.read_text()) for path in tmp_path.glob("*.cls")}
    assert labels == made.labels


# Readers of class folders -----------------------------------------------------------------------------------


def torchvision_rule(root: Path) -> dict[str, str]:
    """torchvision.datasets.ImageFolder: class folders by name; a class without a file is an error."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    assert classes
    found: dict[str, str] = {}
    for name in classes:
        files = [
            file
            for _, _, names in sorted(os.walk(root / name, followlinks=True))
            for file in sorted(names)
            if file.lower().endswith(TORCHVISION)
        ]
        assert files, f"ImageFolder: found no valid file for the classes {name}"
        found |= {Path(file).stem: name for file in files}
    return found


def timm_rule(root: Path) -> dict[str, str]:
    """timm's reader of image folders: the name of the folder a file lies in, numbered in natural order."""
    found = []
    for folder, _, names in os.walk(root, topdown=False, followlinks=True):
        label = os.path.basename(os.path.relpath(folder, root)) if folder != str(root) else ""
        found += [(file, label) for file in names if os.path.splitext(file)[1].lower() in TIMM]

    def natural(text: str) -> list[int | str]:
        return [int(run) if run.isdigit() else run for run in re.split(r"(\d+)", text.lower())]

    classes = sorted({label for _, label in found}, key=natural)
    numbers = {name: number for number, name in enumerate(classes)}
    return {Path(file).stem: classes[numbers[label]] for file, label in found}


def keras_rule(root: Path) -> dict[str, str]:
    """keras.utils.image_dataset_from_directory: folders that do not begin with a dot, walked each."""
    classes = [name for name in sorted(os.listdir(root)) if (root / name).is_dir() and not name.startswith(".")]
    return {
        Path(file).stem: name
        for name in classes
        for _, _, files in sorted(os.walk(root / name), key=lambda step: step[0])
        for file in sorted(files)
        if file.lower().endswith(KERAS)
    }


READERS = {"torchvision": torchvision_rule, "timm": timm_rule, "Keras": keras_rule}


@ALL_CASES
@pytest.mark.parametrize("reader", READERS)
def test_readers_of_class_folders_give_every_file_its_class(make: Make, case: str, reader: str) -> None:
    made = make(case)
    assert READERS[reader](made.root) == made.folders


@pytest.mark.parametrize(("format", "readers"), [("jpeg", list(READERS)), ("webp", ["torchvision"])])
def test_the_formats_are_read_by_the_readers_that_know_them(make: Make, format: str, readers: list[str]) -> None:
    made = make("ten classes", format=format)
    assert all(READERS[reader](made.root) == made.folders for reader in readers)


def test_the_readme_names_no_reader_that_does_not_read_the_format(make: Make) -> None:
    assert "keras" in (make("ten classes").root / "README.md").read_text()
    assert "keras" not in (make("ten classes", format="webp").root / "README.md").read_text()


def test_fewer_images_than_classes_leave_no_class_folder_empty(make: Make) -> None:
    made = make("ten classes", n=3)
    assert len(made.folders) == 3
    assert torchvision_rule(made.root) == timm_rule(made.root) == keras_rule(made.root) == made.folders


def test_class_folders_are_leaves_that_hold_images_alone(make: Make) -> None:
    root = make("ten classes").root
    assert {path.name for path in root.iterdir() if path.is_file()} == {"README.md", "ganrt.json", "ganrt.ledger"}
    for folder in (path for path in root.iterdir() if path.is_dir()):
        assert all(path.is_file() and path.suffix == ".png" for path in folder.iterdir())


# Arrays and parts -------------------------------------------------------------------------------------------


@ALL_CASES
def test_numpy_reads_images_and_labels_in_the_manifests_order(make: Make, case: str) -> None:
    made = make(case, layout="npy")
    images = np.load(made.root / "images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(made.root / "labels.npy", mmap_mode="r", allow_pickle=False)
    assert (images.shape, images.dtype) == ((N, 8, 8, 3), np.uint8)
    assert labels.dtype == np.int64
    assert labels.tolist() == [made.labels[key] for key in sorted(made.labels)]
    wanted = ganrt.load(made.root.parent / "model0.onnx", device="cpu", batch=8).sample(N, start=START)
    np.testing.assert_array_equal(images, wanted)


def test_numpy_reads_images_without_classes(make: Make) -> None:
    made = make("no classes", layout="npy")
    assert np.load(made.root / "images.npy", mmap_mode="r").shape == (N, 8, 8, 3)
    assert not (made.root / "labels.npy").exists()


PARTS = ("a class named test", "ten classes")


def test_two_parts_under_one_root_are_read_as_one_folder(make: Make, load: Callable[..., Any]) -> None:
    made = make(*PARTS)
    assert len(made.folders) == 2 * N
    assert hf_folders(load(str(made.root))) == made.folders
    assert all(rule(made.root) == made.folders for rule in READERS.values())


def test_two_parts_under_one_root_are_read_as_one_webdataset(make: Make, load: Callable[..., Any]) -> None:
    import webdataset

    made = make(*PARTS, layout="webdataset")
    rows = load(str(made.root))
    samples = list(webdataset.WebDataset(archives(made), shardshuffle=False).decode())
    assert {row["__key__"]: row["json"]["class_name"] for row in rows} == made.names
    assert {s["__key__"]: s["json"]["class_name"] for s in samples} == made.names


def test_two_parts_under_one_root_are_read_as_arrays(make: Make) -> None:
    made = make(*PARTS, layout="npy")
    for part in ("part-0", "part-1"):
        labels = np.load(made.root / f"{part}-labels.npy", mmap_mode="r")
        assert np.load(made.root / f"{part}-images.npy", mmap_mode="r").shape == (N, 8, 8, 3)
        assert labels.tolist() == [y for key, y in sorted(made.labels.items()) if key.startswith(part)]
