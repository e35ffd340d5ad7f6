"""The command line as its user sees it: what it prints where, how it ends, and what every error says."""

from __future__ import annotations

import fcntl
import gzip
import inspect
import json
import logging
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

import ganrt
from ganrt import cli, console, errors
from ganrt.errors import GanrtError
from tests.models import float_nchw_proto, tiny_model, tiny_translator
from tests.pictures import folder_of

ROOT = Path(__file__).resolve().parent.parent
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
OPTIONS = {
    "generate": """--n --out --model --seed --start --classes --psi --latent-std --size --resample --mode --layout
        --format --quality --no-mark --shard-size --batch --processes --workers --threads --device --provider-option
        --shard --part --overwrite --dry-run --quiet --json""",
    "models": "--verify --json",
    "inspect": "--json",
    "preview": "--out --rows --cols --classes --seed --device",
    "translate": """--resize --resample --tile --overlap --multiple --layout --format --quality --no-mark --shard-size
        --batch --workers --threads --device --overwrite --quiet --json""",
    "upscale": """--resize --resample --tile --overlap --multiple --layout --format --quality --no-mark --shard-size
        --batch --workers --threads --device --overwrite --quiet --json""",
    "verify": "--repair --model --images --device --quiet --json",
    "merge": "",
    "bench": "--out --batch --workers --threads --seconds --device --json",
    "doctor": "--json",
    "interpolate": """--out --seeds --frames --classes --psi --latent-std --space --loop --square --fps --size
        --device""",
    "style-mix": "--out --rows --cols --layers --classes --psi --device",
    "explain": "--seed --classes --psi --latent-std --part --model --out --device --json",
    "recipes": "",
    "evaluate": """--real --metrics --features --weights --n --cas-n --seed --psi --latent-std --confidence --keep
        --mode --background --on-corrupt --out --device --threads --quiet --json""",
    "train": """--data --run-dir --seed --device --features --start --minutes --mode --background --on-corrupt --split
        --dry-run""",
    "export": """--out --torch --weights --torch-args --key --z-shape --range --classes --labels --layout
        --z-distribution --name --description --data --data-licence --licence --card --quality --precision
        --overwrite""",
}
SMALLEST = "width=2 z_dim=4 batch_size=16 total_kimg=0.032 tick_kimg=0.016 snapshot_kimg=0.032"


@dataclass(frozen=True)
class Ended:
    """What a command left: exit code, stdout, stderr, and the error behind the message, if any."""

    code: int
    out: str
    err: str
    error: BaseException | None = None


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Run]:
    """Runs a command through ``main`` in this process, in an empty folder, with ``fashion`` a tiny generator."""
    models = tmp_path / "models"
    models.mkdir()
    models.joinpath("fashion.onnx").write_bytes(tiny_model(name="fashion", class_names=FASHION, channels=1))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("GANRT_MODELS", str(models))

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["ganrt", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err, ended.value.__context__)

    yield run
    import logging

    logging.getLogger("ganrt").handlers.clear()
    logging.getLogger("ganrt").setLevel(logging.NOTSET)


def well(ended: Ended) -> Ended:
    """A command that did what it was asked to."""
    assert ended.code == 0, ended.err
    return ended


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "training")])
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, *arguments],
        text=True,
        env={**environment, "PYTHONPATH": path, "TERM": "xterm"},
        **{**streams, **options},
    )


# Help and version -------------------------------------------------------------------------------------------


def test_the_version_is_printed(run: Run) -> None:
    assert well(run("--version")).out == f"ganrt {ganrt.__version__}\n"


def test_help_lists_every_command_and_the_exit_codes(run: Run) -> None:
    shown = well(run("--help")).out
    assert set(OPTIONS) <= set(shown.split())
    assert "Exit codes:" in shown
    without = run()
    assert without.code == 2
    assert without.out + without.err == shown


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_a_command_lists_every_option(run: Run, command: str) -> None:
    shown = well(run(command, "--help")).out
    described = set(re.findall(r"^  (?:-\w, )?(--[a-z][a-z0-9-]*)", shown, re.MULTILINE))
    assert described == {*OPTIONS[command].split(), "--help"}


def test_help_is_light(tmp_path: Path) -> None:
    heavy = ("numpy", "onnxruntime", "onnx", "PIL", "isal", "torch", "ganrt_training", "ganrt.generator")
    code = (
        "import sys; sys.argv = ['ganrt', 'generate', '--help']\n"
        "from ganrt.cli import main\n"
        "try: main()\n"
        f"finally: print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    child = process("-c", code, cwd=tmp_path)
    out, err = child.communicate(timeout=120)
    assert "--latent-std" in out
    assert err.strip() == "[]"


# generate ---------------------------------------------------------------------------------------------------


def test_generate_ends_with_a_summary_and_the_next_command_which_works(run: Run) -> None:
    ended = well(run("generate", "--n", 20, "--out", "my data", "--device", "cpu"))
    lines = ended.out.splitlines()
    assert re.fullmatch(r"20 images in [\d.]+ s, [\d,]+ images/s, cpu with \d+ workers", lines[0])
    assert lines[1] == "in my data: layout folder, png"
    assert lines[-1] == "next: ganrt preview 'my data' --out preview.png, or ganrt verify 'my data'"
    assert ended.err == ""
    for command in re.findall(r"ganrt ([^,]+)", lines[-1]):
        well(run(*shlex.split(command.removesuffix(", or"))))
    assert Image.open("preview.png").size[0] > 20


def test_generate_says_on_stderr_which_device_auto_took(run: Run) -> None:
    ended = well(run("generate", "--n", 5, "--out", "a"))
    assert re.match(r"ganrt: device (cpu \(no CUDA: .+\)|cuda:0)\n", ended.err)


def test_generate_says_that_there_is_nothing_to_do_and_what_was_there_already(run: Run) -> None:
    well(run("generate", "--n", 1030, "--out", "a"))
    assert well(run("generate", "--n", 1030, "--out", "a")).out.startswith(
        "nothing to do: 1,030 images are in a\nnext: "
    )
    grown = well(run("generate", "--n", 2000, "--out", "a")).out
    assert grown.startswith("976 images (1,024 were there already) in ")


def test_generate_prints_one_json_object_and_nothing_else_on_stdout(run: Run) -> None:
    ended = well(run("generate", "--n", 30, "--out", "a", "--json", "--workers", 2, "--batch", 8, "--device", "cpu"))
    report = json.loads(ended.out)
    assert ended.out.count("\n") == 1
    assert {"images", "seconds", "images_per_second", "device", "workers", "batch", "out"} <= report.keys()
    found = {key: report[key] for key in ("images", "device", "workers", "batch", "out", "complete")}
    assert found == {"images": 30, "device": "cpu", "workers": 2, "batch": 8, "out": "a", "complete": True}
    assert report["seconds"] > 0 and report["images_per_second"] > 0


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_generate_tells_how_many_workers_and_threads_there_are(
    run: Run, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    for module in ("workers", "network"):
        monkeypatch.setattr(f"ganrt.{module}.cpu_count", lambda: 4)

    def told(out: str, options: str) -> tuple[int, int]:
        words = f"generate --n 20 --batch 8 --json --device cpu --out {out} {options}"
        report = json.loads(well(run(*words.split(), *more)).out)
        return report["workers"], report["threads"]

    assert told("a", "--workers 2 --threads 3") == (2, 3)
    assert told("b", "--workers 1") == (1, 1)
    assert told("c", "--threads 2") == (2, 2)
    assert told("d", "--threads 9") == (1, 9)
    assert told("e", "--batch 32") == (1, 4)
    assert told("a", "") == ((3, 1) if more else (0, None))  # everything is there: nobody is needed


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_quiet_leaves_stderr_empty(run: Run, more: tuple[str, ...]) -> None:
    ended = well(run("generate", "--n", 30, "--out", "a", "--quiet", *more))
    assert ended.err == ""
    assert bool(ended.out) == bool(more)


def test_progress_is_a_line_now_and_then_where_stderr_is_no_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_QUIET_INTERVAL", 0.0)
    ended = well(run("generate", "--n", 3000, "--out", "a", "--layout", "npy", "--device", "cpu"))
    assert re.fullmatch(r"([\d,]+/3,000 images  [\d,]+/s(, [\d.]+ (s|min|h) left)?\n)+", ended.err)
    assert ended.err.splitlines()[-1].startswith("3,000/3,000 images  ")


def test_short_runs_show_no_progress_where_stderr_is_no_terminal(run: Run) -> None:
    assert well(run("generate", "--n", 30, "--out", "a", "--device", "cpu")).err == ""


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are a thing of POSIX")
@pytest.mark.parametrize("quiet", [False, True])
def test_progress_is_a_bar_on_a_terminal_and_is_cleared(run: Run, quiet: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    more = ["--quiet"] if quiet else []
    arguments = ["generate", "--n", "3000", "--out", "a", "--device", "cpu", "--layout", "npy", *more]
    child = process("-m", "ganrt", *arguments, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # Linux says so that the other end is closed
        pass
    os.close(ours)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    if quiet:
        assert shown == b"" and out == ""
        return
    text = shown.decode()
    assert re.search(r"\r\[#*\.*\] [\d,]+/3,000 images  [\d,]+/s", text)
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text
    assert out.startswith("3,000 images in ")


def test_dry_run_tells_and_writes_nothing(run: Run) -> None:
    lines = well(run("generate", "--n", 1000, "--out", "a", "--dry-run", "--device", "cpu")).out.splitlines()
    assert lines[0] == "would make 1,000 images (0 are there) in a"
    assert [line.split()[0] for line in lines[1:4]] == ["files:", "bytes:", "time:"]
    assert lines[-1] == "nothing was written"
    assert list(Path().iterdir()) == []


def test_dry_run_tells_as_json(run: Run) -> None:
    told = json.loads(well(run("generate", "--n", 1000, "--out", "a", "--dry-run", "--json")).out)
    assert (told["images"], told["already"], told["out"]) == (1000, 0, "a")
    assert told["files"] >= 1000 and told["inodes"] >= 1010
    assert told["bytes"] > 0 and told["bytes_on_disk"] > told["bytes"] and told["seconds"] > 0
    assert not Path("a").exists()


@pytest.mark.parametrize(
    ("text", "size"), [("16", (16, 16)), ("16x12", (16, 12)), ("16X12", (16, 12)), (" 16 x 12 ", (16, 12))]
)
def test_size_is_a_side_or_width_x_height(run: Run, text: str, size: tuple[int, int]) -> None:
    well(run("generate", "--n", 1, "--out", "a", "--size", text))
    assert Image.open(next(Path("a").glob("*/*.png"))).size == size


@pytest.mark.parametrize("text", ["big", "", "x", "64x", "64x48x3", "-1", "1e3", "64,48"])
def test_a_size_that_cannot_be_meant_is_shown_with_what_was_expected(run: Run, text: str) -> None:
    ended = run("generate", "--n", 1, "--out", "a", f"--size={text}")
    assert ended.code == 2
    assert ended.err == f"ganrt: size {text!r}\n  Expected a side or WIDTHxHEIGHT in pixels, as in 64 or 64x48.\n"


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        (["--classes", "Sneaker,Bag"], {"Sneaker", "Bag"}),
        (["--classes", "sneaker", "--classes", "8"], {"Sneaker", "Bag"}),
        (["--classes", " t-SHIRT/top , 9"], {"T-shirt_top", "Ankle boot"}),
    ],
)
def test_classes_are_named_with_commas_or_again_by_name_or_number(
    run: Run, arguments: list[str], folders: set[str]
) -> None:
    well(run("generate", "--n", 10, "--out", "a", *arguments))
    assert {path.name: len(list(path.iterdir())) for path in Path("a").iterdir() if path.is_dir()} == dict.fromkeys(
        folders, 5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--quality 90", "quality does not apply to png"),
        ("--format png --quality 90", "quality does not apply to png"),
        ("--format jpeg --quality 101", "quality 101"),
        ("--layout npy --format png", "format does not apply to layout npy"),
        ("--layout npy --no-mark", "mark does not apply to layout npy"),
        ("--layout npy --quality 90", "quality does not apply to layout npy"),
        ("--layout npy --shard 0/2", "layout npy cannot be made by several machines"),
        ("--resample nearest", "resample does not apply without a size"),
        ("--size 8 --resample bicubic", "resample 'bicubic'"),
        ("--psi 0.5", "psi 0.5: generator fashion takes no truncation"),
        ("--psi 1.5", "psi 1.5"),
        ("--latent-std 0", "latent std 0.0"),
        ("--layout zip", "layout 'zip'"),
        ("--format tiff", "format 'tiff'"),
        ("--mode cmyk", "mode 'cmyk'"),
        ("--device gpu", "device 'gpu'"),
        ("--device cpu:1", "device 'cpu:1'"),
        ("--shard 2/2", "shard '2/2'"),
        ("--shard 1", "shard '1'"),
        ("--shard 0/2 --overwrite", "overwrite would remove what the other machines wrote"),
        ("--shard-size 100", "shard size 100 is no multiple of the batch 64"),
        ("--part a/b", "part 'a/b'"),
        ("--classes Bag,bag", "class 'Bag' is named twice"),
        ("--classes ,", "no class is named"),
        ("--workers 0", "workers 0"),
        ("--workers 1025", "workers 1025"),
        ("--threads 0", "threads 0"),
        ("--threads -1", "threads -1"),
        ("--threads 1025", "threads 1025"),
        ("--batch 0", "batch 0"),
        ("--seed -1", "seed -1"),
        ("--start -1", "start -1"),
        ("--n -1", "n -1"),
    ],
)
def test_options_that_cannot_be_meant_or_do_not_apply_are_usage_errors(run: Run, arguments: str, message: str) -> None:
    ended = run("generate", "--n", 1, "--out", "a", *arguments.split())
    assert ended.code == 2
    assert ended.err.startswith(f"ganrt: {message}")
    assert len(ended.err.splitlines()) == 2, "a hint"
    assert ended.out == "" and not Path("a").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("generate --out a", "'--n'"),
        ("generate --n 5", "'--out'"),
        ("generate --n ten --out a", "'--n'"),
        ("generate --n 5 --out a --nonsense", "--nonsense"),
        ("generate --n 5 --out a --psi high", "'--psi'"),
        ("generate --n 5 --out a --threads two", "'--threads'"),
        ("generate --n 5 --out a --threads 1.5", "'--threads'"),
        ("nonsense", "nonsense"),
    ],
)
def test_what_the_parser_refuses_is_a_usage_error(run: Run, arguments: str, message: str) -> None:
    ended = run(*arguments.split())
    assert ended.code == 2
    assert message in ended.err


# The other commands -----------------------------------------------------------------------------------------


def test_models_lists_names_and_cards(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models" / "broken.onnx").write_bytes(b"not a model")
    lines = {line.split()[0]: line for line in well(run("models")).out.splitlines()}
    assert "8x8 grey, 10 classes" in lines["fashion"] and "A tiny generator for tests" in lines["fashion"]
    assert "broken" in lines


def test_models_are_told_as_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models" / "broken.onnx").write_bytes(b"not a model")
    found = {entry["name"]: entry for entry in json.loads(well(run("models", "--json")).out)}
    assert found["fashion"]["card"]["class_names"] == list(FASHION) and found["fashion"]["problem"] is None
    assert found["broken"]["card"] is None and found["broken"]["problem"]


def test_models_of_a_folder(run: Run, tmp_path: Path) -> None:
    assert len(well(run("models", tmp_path / "models")).out.splitlines()) == 1
    nothing = well(run("models", "."))
    assert (nothing.out, nothing.err) == ("", "no generators found\n")
    assert run("models", "missing").err.startswith("ganrt: missing is no folder\n")


def test_models_verify_tells_what_was_shipped_from_what_was_not(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models" / "broken.onnx").write_bytes(b"not a model")
    told = [line.split(maxsplit=3) for line in well(run("models", "--verify")).out.splitlines()]
    assert [(name, state) for name, *rest in told for state in [" ".join(rest[:2])]] == [
        ("broken", "not shipped"), ("fashion", "not shipped"),
        ("fashion-fast", "as shipped"), ("fashion", "as shipped"), ("features/fashion", "as shipped"),
    ]  # fmt: skip
    assert "the file is not" in told[0][3] or "ONNX" in told[0][3]
    mine = json.loads(well(run("models", tmp_path / "models", "--verify", "--json")).out)
    assert [(entry["name"], entry["state"], entry["well"]) for entry in mine] == [
        ("broken", "not shipped", True), ("fashion", "not shipped", True)
    ]  # fmt: skip


def test_models_verify_ends_with_5_when_a_shipped_file_is_changed_or_gone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "exported"
    shipped.mkdir()
    monkeypatch.setattr("ganrt.models._HERE", tmp_path)
    monkeypatch.setenv("GANRT_MODELS", "")
    data = bytearray((ROOT / "exported" / "fashion.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (shipped / "fashion.onnx").write_bytes(data)
    shutil.copy(ROOT / "exported" / "fashion-fast.onnx", shipped)
    ended = run("models", "--verify")
    assert ended.code == 5
    assert re.search(r"^fashion +CHANGED +\S+fashion\.onnx: its SHA-256 is [0-9a-f]{64}", ended.out, re.M)
    assert ended.err.startswith("ganrt: not as shipped: fashion, features/fashion\n  Install ganrt again")
    (shipped / "fashion.onnx").unlink()
    ended = run("models", "--verify")
    assert ended.code == 5 and re.search(r"^fashion +MISSING", ended.out, re.M)


def test_models_verify_looks_at_feature_networks_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are listed as no generators, but a changed one would change every figure that it measures."""
    exported = tmp_path / "exported"
    shutil.copytree(ROOT / "exported", exported)
    monkeypatch.setattr("ganrt.models._HERE", tmp_path)
    monkeypatch.setenv("GANRT_MODELS", str(tmp_path / "mine"))
    (tmp_path / "mine" / "features").mkdir(parents=True)
    (tmp_path / "mine" / "features" / "broken.onnx").write_bytes(b"not a model")
    assert "features" not in well(run("models")).out
    told = well(run("models", "--verify")).out
    assert re.search(r"^features/broken +not shipped .*broken\.onnx is no ONNX file", told, re.M), told
    assert re.search(r"^features/fashion +as shipped ", told, re.M)
    path = exported / "features" / "fashion.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    ended = run("models", "--verify")
    assert ended.code == 5 and re.search(r"^features/fashion +CHANGED ", ended.out, re.M)
    path.unlink()
    ended = run("models", "--verify")
    assert ended.code == 5 and re.search(r"^features/fashion +MISSING ", ended.out, re.M)


def test_inspect_shows_the_card_and_the_digest(run: Run, tmp_path: Path) -> None:
    shown = well(run("inspect", "fashion")).out
    assert re.search(r"SHA-256 [0-9a-f]{64}\n", shown)
    assert "follows version 1 of the contract" in shown
    assert f"class_names: {', '.join(FASHION)}" in shown
    told = json.loads(well(run("inspect", tmp_path / "models" / "fashion.onnx", "--json")).out)
    assert told["card"]["name"] == "fashion" and told["sha256"] in shown


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, "8x8 RGB to 8x8 RGB"),
        ({"scale": 2, "width": 5, "channels": 1}, "5x8 grey to 10x16 grey"),
        ({"dynamic": True}, "any size RGB"),
        ({"dynamic": True, "scale": 2}, "any size RGB, 2x"),
        ({"dynamic": True, "scale": 4, "in_channels": 1}, "any size grey to RGB, 4x"),
    ],
)
def test_generators_of_images_are_shown_as_such(run: Run, tmp_path: Path, options: dict[str, Any], sizes: str) -> None:
    (tmp_path / "models" / "sketch.onnx").write_bytes(tiny_translator(name="sketch", **options))
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in well(run("models")).out.splitlines()}
    assert re.fullmatch(rf"{sizes}, [\d.]+ (kB|bytes), Apache-2.0: A tiny translator for tests\.", lines["sketch"])
    assert "8x8 grey, 10 classes" in lines["fashion"]
    found = {entry["name"]: entry for entry in json.loads(well(run("models", "--json")).out)}
    assert found["sketch"]["card"]["kind"] == "image-to-image" and found["fashion"]["dynamic"] is False
    assert found["sketch"]["dynamic"] is options.get("dynamic", False)
    shown = well(run("inspect", "sketch")).out.splitlines()
    assert {"kind: image-to-image", f"images: {sizes}"} <= set(shown)
    assert not [line for line in shown if line.startswith(("z_", "class_names", "psi"))]
    told = json.loads(well(run("inspect", "sketch", "--json")).out)
    assert told["dynamic"] is options.get("dynamic", False)


@pytest.mark.parametrize(
    "arguments",
    ["generate --n 1 --out a --model", "generate --n 1 --out a --dry-run --model", "preview --out a.png", "bench"],
)
def test_commands_that_draw_samples_refuse_generators_of_images(run: Run, tmp_path: Path, arguments: str) -> None:
    (tmp_path / "models" / "sketch.onnx").write_bytes(tiny_translator(name="sketch"))
    ended = run(*arguments.split(), "sketch")
    assert ended.code == 2 and ended.out == ""
    said = [line for line in ended.err.splitlines() if "device" not in line]
    assert said[0] == "ganrt: generator sketch is image-to-image: it takes images, not latents"
    assert "ganrt translate MODEL IMAGES DIR" in said[1] and len(said) == 2
    assert not any(Path().iterdir())


def test_preview_draws_a_generator_and_a_dataset_alike(run: Run) -> None:
    assert well(run("preview", "fashion", "--out", "a.png", "--cols", 3)).out == "a.png: 32x102 pixels\n"
    well(run("generate", "--n", 100, "--out", "data"))
    well(run("preview", "data", "--out", "b.png", "--cols", 3))
    np.testing.assert_array_equal(np.asarray(Image.open("a.png")), np.asarray(Image.open("b.png")))
    well(run("preview", "data", "--out", "c.png", "--classes", "Bag,Coat", "--rows", 2, "--cols", 4))
    assert Image.open("c.png").size == (42, 22)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fashion --out a.jpg", "a.jpg does not end in .png"),
        ("data --out a.png --seed 1", "seed does not apply to a dataset"),
        ("fashion --out missing/a.png", "missing is no folder"),
        ("fashion --out a.png --rows 0", "rows 0"),
        ("fashion --out a.png --classes Boot", "generator fashion has no class 'Boot'"),
        ("data --out a.png --classes Boot", "generator fashion has no class 'Boot'"),
    ],
)
def test_preview_refuses_what_does_not_apply(run: Run, arguments: str, message: str) -> None:
    well(run("generate", "--n", 10, "--out", "data", "--quiet"))
    ended = run("preview", *arguments.split())
    assert ended.code == 2 and f"ganrt: {message}" in ended.err.splitlines()


def test_images_are_translated_verified_repaired_and_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models" / "larger.onnx").write_bytes(tiny_translator(name="larger", dynamic=True, scale=2))
    folder_of(Path("my photos"), ["cat/a.png", "cat/b.png", "dog/a.png"])
    ended = well(run("upscale", "larger", "my photos", "large", "--device", "cpu", "--tile", 6, "--format", "webp"))
    lines = ended.out.splitlines()
    assert re.fullmatch(r"3 images in [\d.]+ s, [\d,]+ images/s, cpu with \d+ workers", lines[0])
    assert lines[1] == "in large: layout folder, webp"
    assert lines[2] == "next: ganrt preview large --out preview.png, or ganrt verify large"
    assert well(run("translate", "larger", "my photos", "large", "--tile", 6, "--format", "webp")).out.startswith(
        "nothing to do: 3 images are in large\n"
    )
    well(run("preview", "large", "--out", "preview.png"))
    assert Image.open("preview.png").size == (2 + 2 * 18, 2 + 2 * 18)
    Path("large/cat/b.webp").unlink()
    ended = run("verify", "large", "--repair")
    assert ended.code == 2 and "Name their folder with --images DIR" in ended.err
    well(run("verify", "large", "--repair", "--images", "my photos"))
    told = json.loads(well(run("translate", "larger", "my photos", "more", "--json", "--quiet", "--no-mark")).out)
    assert (told["images"], told["complete"], told["layout"], told["model"]) == (3, True, "folder", "larger")
    assert b"trainedAlgorithmicMedia" not in Path("more/cat/a.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("upscale same photos out", 2, "generator same makes images of the size it is given: it enlarges nothing"),
        ("translate fashion photos out", 2, "generator fashion is latent-to-image: it takes latents, not images"),
        ("translate nothing photos out", 2, "no model named 'nothing'"),
        ("translate same photos photos/out", 2, "photos/out lies in photos"),
        ("translate same missing out", 2, "missing is no folder"),
        ("translate same photos out --tile 4", 2, "tile does not apply: generator same takes images of 8x8 alone"),
        ("translate same photos data", 3, "data holds another dataset:"),
        ("verify data --images photos", 2, "--images does not apply without --repair"),
    ],
)
def test_translate_refuses_what_cannot_be_meant(
    run: Run, tmp_path: Path, arguments: str, code: int, message: str
) -> None:
    (tmp_path / "models" / "same.onnx").write_bytes(tiny_translator(name="same"))
    folder_of(Path("photos"), ["cat/a.png", "dog/a.png"])
    well(run("generate", "--n", 10, "--out", "data", "--quiet"))
    ended = run(*arguments.split())
    assert ended.code == code and ended.out == ""
    assert any(line.startswith(f"ganrt: {message}") for line in ended.err.splitlines()), ended.err


def test_verify_finds_names_and_repairs_damage(run: Run) -> None:
    well(run("generate", "--n", 40, "--out", "a"))
    assert well(run("verify", "a")).out == "a: every file is as it was written\n"
    assert json.loads(well(run("verify", "a", "--json")).out) == {"dataset": "a", "well": True, "damage": []}
    Path("a/Bag/00000008.png").unlink()
    ended = run("verify", "a", "--json")
    assert ended.code == 5
    assert [(d["name"], d["what"]) for d in json.loads(ended.out)["damage"]] == [("Bag/00000008.png", "missing")]
    assert run("verify", "a").out == "Bag/00000008.png: missing\n"
    assert well(run("verify", "a", "--repair")).out == "a: every file is as it was written\n"
    assert run("verify", "a", "--model", "fashion").code == 2


def test_merge_joins_the_shares_of_several_machines(run: Run) -> None:
    well(run("generate", "--n", 100, "--out", "a", "--shard", "0/2", "--batch", 8, "--shard-size", 16))
    early = run("merge", "a")
    assert early.code == 1
    assert early.err.startswith("ganrt: the dataset of a lacks 48 of 100 images (shards 1, 3, 5)\n")
    last = well(run("generate", "--n", 100, "--out", "a", "--shard", "1/2", "--batch", 8, "--shard-size", 16))
    assert "next: " in last.out
    Path("a/README.md").unlink()
    assert well(run("merge", "a")).out == "a: 100 images, complete\n"
    assert Path("a/README.md").exists()


def test_a_share_says_that_others_are_missing(run: Run) -> None:
    ended = well(run("generate", "--n", 100, "--out", "a", "--shard", "0/2", "--batch", 8, "--shard-size", 16))
    assert ended.out.splitlines()[-1].startswith("not complete yet: ")


def test_a_command_tells_of_a_device_once_and_of_each_warning(capsys: pytest.CaptureFixture[str]) -> None:
    console.before_running("cuda", quiet=False)  # of another device memory would be bounded, of this process
    logger = logging.getLogger("ganrt.test")
    for _ in range(2):  # as where two networks run
        logger.info("device cpu")
        logger.warning("slow")
    assert capsys.readouterr().err.splitlines() == ["ganrt: device cpu", "ganrt: slow", "ganrt: slow"]


def test_doctor_tries_the_devices(run: Run) -> None:
    lines = well(run("doctor")).out.splitlines()
    assert any(re.match(r"ok +cpu: works: [\d,]+ images/s", line) for line in lines)
    told = json.loads(well(run("doctor", "--json")).out)
    assert told["well"] and {"ganrt", "packages", "onnxruntime", "cpu"} <= {check["name"] for check in told["checks"]}


def test_doctor_ends_with_1_when_no_images_can_be_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models" / "fashion.onnx").write_bytes(b"not a model")
    ended = run("doctor")
    assert ended.code == 1
    assert re.search(r"^FAULT +cpu: ", ended.out, re.MULTILINE)


def test_doctor_says_so_when_the_shipped_name_is_of_a_generator_of_images(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models" / "fashion.onnx").write_bytes(tiny_translator(name="sketch"))
    ended = run("doctor")
    assert ended.code == 1
    assert re.search(r"^FAULT +cpu: generator sketch is image-to-image: it takes images", ended.out, re.MULTILINE)


def idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


def test_a_gan_is_trained_exported_and_put_to_use(run: Run) -> None:
    assert "cgan_projection_28" in well(run("recipes")).out
    Path("data").mkdir()
    random = np.random.default_rng(0)
    idx(Path("data/train-images-idx3-ubyte.gz"), random.integers(0, 256, (64, 28, 28), np.uint8))
    idx(Path("data/train-labels-idx1-ubyte.gz"), np.arange(64, dtype=np.uint8) % 10)
    train = ("train", "cgan_projection_28", *SMALLEST.split(), "--data", "data")
    described = well(run(*train, "--dry-run")).out
    for part in ("on 64 images of 28x28 grey, 10 classes", "generator ", "million MACs an image", "images/s on cpu"):
        assert part in described
    assert [path.name for path in Path().iterdir()] == ["data"]
    assert run(*train).code == 2  # no folder to write to
    trained = well(run(*train, "--run-dir", "runs/a", "--device", "cpu"))
    assert "kimg" in trained.err and "quality" in trained.err
    assert trained.out == "report: runs/a/report.html\nnext: ganrt export runs/a\n"
    exported = well(run(*shlex.split(trained.out.split("next: ganrt ")[1])))
    assert exported.out.startswith("runs/a/a.onnx: a, equal to its source: {")
    [command] = re.findall(r"next: ganrt (.+)", exported.out)
    well(run(*shlex.split(command)))
    assert len(list(Path("DIR").glob("*/*.png"))) == 1000
    well(run("inspect", "runs/a/a.onnx"))
    assert "a.fp16.onnx" in well(run("export", "runs/a", "--precision", "fp16")).out
    assert run("export", "runs/a", "--precision", "int8").code == 2


def test_a_training_is_stopped_by_a_signal(run: Run) -> None:
    Path("data").mkdir()
    for i in range(32):
        Image.fromarray(np.full((28, 28), 8 * i, np.uint8)).save(f"data/{i}.png")
    Path("data/broken.png").write_bytes(b"\x89PNG")
    settings = ["width=1", "z_dim=4", "batch_size=16", "total_kimg=1000", "tick_kimg=0.016", "snapshot_kimg=10"]
    command = ("train", "mlp_28", *settings, "--data", "data", "--run-dir", "run", "--device", "cpu")
    child = process("-m", "ganrt", *command, "--on-corrupt", "skip")
    assert child.stderr
    assert "skipped: " in child.stderr.readline()
    assert "kimg" in child.stderr.readline()
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 143
    assert "Traceback" not in said
    steps = [json.loads(line)["step"] for line in Path("run/stats.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_a_float_generator_is_wrapped_by_export(run: Run) -> None:
    Path("float.onnx").write_bytes(float_nchw_proto().SerializeToString())
    well(run("export", "float.onnx", "--range=-1,1", "--out", "fit.onnx", "--name", "mine"))
    assert "name: mine" in well(run("inspect", "fit.onnx")).out
    assert run("export", "float.onnx", "--range=white", "--out", "fit2.onnx").code == 2
    ended = run("export", "float.onnx", "--range=0,0.1", "--out", "fit2.onnx")
    assert ended.code == 2 and "Pass the --range that its training images had" in ended.err
    Path("card.json").write_text('{"licence": "MIT", "data": "faces"}')
    texts = ("--card", "card.json", "--licence", "CC0", "--description", "Theirs.")
    told = well(run("export", "float.onnx", "--out", "fit2.onnx", "--precision", "fp16", *texts))
    assert re.search(r"^range: \[-1, 1\], guessed: .* --range=-1,1 fixes it$", told.out, re.MULTILINE)
    shown = well(run("inspect", "fit2.onnx")).out
    assert re.search(r"licence: CC0", shown) and "data: faces" in shown and "description: Theirs." in shown
    assert "precision: float16" in shown


def test_pytorch_code_and_weights_are_exported(run: Run) -> None:
    Path("theirs.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.ConvTranspose2d):\n"
        "    def forward(self, z):\n        return super().forward(z).tanh()\n"
    )
    torch.save({"g": torch.nn.ConvTranspose2d(6, 3, 8).state_dict()}, "weights.pth")
    command = ("export", "--torch", "theirs.py:Net", "--torch-args", "[6, 3, 8]", "--weights", "weights.pth")
    told = well(run(*command, "--out", "net.onnx", "--key", "g", "--z-shape", "6,1,1", "--range=-1,1")).out.splitlines()
    assert told[0].startswith("takes latents z float32 [N, 6, 1, 1]; makes images [N, 3, 8, 8], 8x8 RGB")
    assert told[1].startswith("net.onnx: net, equal to its source: {")
    assert told[2:] == ["next: ganrt generate --n 1000 --out DIR --model ./net.onnx"]
    well(run("generate", "--n", "8", "--out", "made", "--model", "./net.onnx"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("export --out a.onnx", "what to export is missing\n  Name a run folder or a file, or --torch MODULE:CALLABLE"),
        ("export float.onnx", "--out is missing\n  Name the file to write: --out generator.onnx"),
        ("export a.onnx --torch a:B --weights w.pt --out b.onnx", "a.onnx and --torch: two sources\n  Name one"),
        ("export --torch a:B --out b.onnx", "--weights is missing\n  Name the file of the network's weights"),
        ("export float.onnx --key g --out b.onnx", "--key does not apply without --torch\n  Name the code that makes"),
        ("export w.pth --out b.onnx", "w.pth: weights alone do not say what network they belong to\n  Name the code"),
        ("export saved --out b.onnx", "saved: is a model of TensorFlow's own\n  Load it in TensorFlow and save it"),
        ("export m.tflite --out b.onnx", "m.tflite: is a model of TensorFlow's own"),
        ("export runs/a --labels int", "--labels does not apply to a run\n  The run knows it: leave it out."),
        ("export done.onnx --out b.onnx --licence MIT", "a text for the card does not apply: done.onnx has a card"),
        ("export done.onnx --out b.onnx --z-distribution normal", "--z-distribution does not apply: done.onnx has"),
        ("export --torch a:B --weights w.pt --z-shape x --out b.onnx", "z shape 'x'\n  Expected sizes after N, as in"),
        ("export float.onnx --labels words --out b.onnx", "labels 'words'\n  Expected int or onehot."),
    ],
)
def test_exports_that_cannot_be_meant(run: Run, command: str, message: str) -> None:
    Path("float.onnx").write_bytes(float_nchw_proto().SerializeToString())
    Path("done.onnx").write_bytes(tiny_model())
    Path("saved").mkdir()
    Path("saved/saved_model.pb").touch()
    ended = run(*shlex.split(command))
    assert ended.code == 2
    assert message in ended.err
    assert not Path("b.onnx").exists()


def test_a_reader_that_leaves_early_is_no_traceback(run: Run) -> None:
    child = process("-m", "ganrt", "inspect", "fashion")
    assert child.stdout and child.stderr
    child.stdout.close()
    assert child.stderr.read() == ""
    assert child.wait(120) == 1


# Errors -----------------------------------------------------------------------------------------------------

Case = Callable[[Run, Path], Ended]
CASES: dict[type[GanrtError], tuple[int, str, Case]] = {}


def case(error: type[GanrtError], code: int, shown: str) -> Callable[[Case], Case]:
    """A way to get an error, the exit code, and what is read on stderr (a regular expression)."""

    def add(function: Case) -> Case:
        CASES[error] = (code, shown, function)
        return function

    return add


@case(errors.UsageError, 2, r"ganrt: n -5\n  Expected a whole number of 0 to \d+\.\n")
def _(run: Run, folder: Path) -> Ended:
    return run("generate", "--n", -5, "--out", "a")


@case(errors.UnknownModel, 2, r"ganrt: no model named 'fasion'\n  Did you mean fashion\? There are: .*fashion.*\n")
def _(run: Run, folder: Path) -> Ended:
    return run("generate", "--n", 5, "--out", "a", "--model", "fasion")


@case(
    errors.UnknownClass,
    2,
    r"ganrt: generator fashion has no class 'Shoe'\n  It has 10: T-shirt/top, .*, Ankle boot\.\n",
)
def _(run: Run, folder: Path) -> Ended:
    return run("generate", "--n", 5, "--out", "a", "--classes", "Shoe")


@case(
    errors.ContractError,
    1,
    r"ganrt: raw\.onnx does not follow the ganrt contract:\n  - images is float32 \[N, 3, 8, 8\];.*\n(  - .*\n)*"
    r"  .* this makes it fit: ganrt export raw\.onnx --range=-1,1 --out fitting\.onnx\n",
)
def _(run: Run, folder: Path) -> Ended:
    Path("raw.onnx").write_bytes(float_nchw_proto().SerializeToString())
    return run("generate", "--n", 5, "--out", "a", "--model", "raw.onnx")


@case(
    errors.InferenceError,
    1,
    r"ganrt: ONNX Runtime: .+\n  Export the generator again, or upgrade onnxruntime\.\n"
    r"  0 of 20 images are finished and kept; the same command goes on from there\.\n",
)
def _(run: Run, folder: Path) -> Ended:
    Path("broken.onnx").write_bytes(tiny_model(table_rows=2))
    return run("generate", "--n", 20, "--out", "a", "--model", "broken.onnx", "--device", "cpu")


@case(errors.DeviceUnavailable, 1, r"ganrt: .*(driver|cuda:99|CUDA_VISIBLE_DEVICES|GPU|CUDA).*\n  \S.*\n")
def _(run: Run, folder: Path) -> Ended:
    return run("generate", "--n", 5, "--out", "a", "--device", "cuda:99")


@case(
    errors.MissingExtra,
    1,
    r"ganrt: training and export need the package torch\n  Install the extra: pip install 'ganrt\[train\]'\n",
)
def _(run: Run, folder: Path) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        return run("export", "runs/a", "--out", "a.onnx")


@case(errors.DatasetError, 1, r"ganrt: . holds no ganrt dataset\n  Name the folder that was given to generate .*\n")
def _(run: Run, folder: Path) -> Ended:
    return run("verify", ".")


@case(
    errors.DatasetMismatch,
    3,
    r"ganrt: a holds another dataset:\n  seed: 1, there 0\n  Name another --out, .* --part NAME, or .* --overwrite\.\n",
)
def _(run: Run, folder: Path) -> Ended:
    well(run("generate", "--n", 5, "--out", "a"))
    return run("generate", "--n", 5, "--out", "a", "--seed", 1)


@case(errors.DatasetLocked, 1, r"ganrt: another run is writing the dataset of a\n  Wait for it, .* --shard K/M .*\n")
def _(run: Run, folder: Path) -> Ended:
    well(run("generate", "--n", 5, "--out", "a"))
    with open("a/ganrt.ledger", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return run("generate", "--n", 50, "--out", "a", "--device", "cpu")


@case(errors.DatasetDamaged, 5, r"ganrt: 2 things are not .*\n  Make what is broken again: ganrt verify a --repair\n")
def _(run: Run, folder: Path) -> Ended:
    well(run("generate", "--n", 5, "--out", "a"))
    for path in list(Path("a").glob("*/*.png"))[:2]:
        path.write_bytes(b"")
    return run("verify", "a")


@case(errors.StorageError, 1, r"ganrt: cannot read or write: Not a directory \(.*file.*\)\n  .+\n")
def _(run: Run, folder: Path) -> Ended:
    Path("file").write_bytes(b"")
    return run("generate", "--n", 5, "--out", "file/a")


@case(
    errors.StorageFull,
    4,
    r"ganrt: no space or inodes left\n  Make room and give the same command again; finished images are kept\.\n"
    r"  0 of 5 images are finished and kept; the same command goes on from there\.\n",
)
def _(run: Run, folder: Path) -> Ended:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ganrt.layouts.folder.write_loose", full)
        return run("generate", "--n", 5, "--out", "a", "--device", "cpu")


@case(
    errors.Cancelled,
    130,
    r"ganrt: .+\n(  .+\n)?  [\d,]+ of 2,000,000 images are finished and kept; the same command goes on from there\.\n"
    r"|\nended at once; the same command goes on from what is finished\n",  # on a machine that is very busy
)
def _(run: Run, folder: Path) -> Ended:
    arguments = ["generate", "--n", "2000000", "--out", "a", "--layout", "npy", "--device", "cpu", "--workers", "1"]
    child = process("-m", "ganrt", *arguments)
    while not Path("a/images.npy.part").exists():
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert "Traceback" not in err
    return Ended(child.returncode, out, err, errors.Cancelled("in another process"))


@case(errors.TrainingError, 1, r"ganrt: \.: no images\n  Accepted are: .*\n")
def _(run: Run, folder: Path) -> Ended:
    return run("train", "cgan_projection_28", "--data", ".", "--run-dir", "runs/a")


@case(errors.ParityError, 1, r"ganrt: .*from the row alone.*\n  .*Nothing was written\.\n")
def _(run: Run, folder: Path) -> Ended:
    model = float_nchw_proto()  # to which a node is added that couples the rows of a batch
    for node in model.graph.node:
        node.input[:] = ["centred" if name == "z" else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
    model.graph.node.insert(0, onnx.helper.make_node("Sub", ["z", "mean"], ["centred"]))
    model.graph.node.insert(0, onnx.helper.make_node("ReduceMean", ["z", "axes"], ["mean"], keepdims=1))
    Path("coupled.onnx").write_bytes(model.SerializeToString())
    ended = run("export", "coupled.onnx", "--range=-1,1", "--out", "fit.onnx")
    assert not Path("fit.onnx").exists()
    return ended


def every_error() -> list[type[GanrtError]]:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GanrtError)]
    return sorted(found, key=lambda kind: kind.__name__)


def test_every_error_has_a_case() -> None:
    bases = {errors.GanrtError, errors.ModelError}  # never shown by a command: see the next tests
    assert {*CASES} | bases == {*every_error()}
    assert {*every_error()} >= {kind for kind in every_error() if not kind.__subclasses__()}


@pytest.mark.parametrize("error", CASES, ids=lambda kind: kind.__name__)
def test_an_error_says_what_is_wrong_and_what_to_do(run: Run, tmp_path: Path, error: type[GanrtError]) -> None:
    code, shown, make = CASES[error]
    ended = make(run, tmp_path)
    assert type(ended.error) is error
    assert re.fullmatch(shown, ended.err), ended.err
    assert ended.code == code


def test_a_pickled_generator_whose_file_changed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(tiny_model())
    kept = pickle.dumps(ganrt.load(path, device="cpu"))
    path.write_bytes(tiny_model(seed=1))
    with pytest.raises(errors.ModelError) as raised:
        pickle.loads(kept)
    assert str(raised.value) == f"{path} is not the file that the pickled generator was loaded from\nLoad it again."


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: dict[str, tuple[str | None, int | None]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│ ├└─]*)([A-Z]\w+)(?: \((\d+)\))?", line):
            depth = len(match[1]) // 4
            del above[depth:]
            drawn[match[2]] = (above[-1] if above else None, int(match[3]) if match[3] else None)
            above.append(match[2])
    assert drawn.keys() == {kind.__name__ for kind in every_error()}
    for kind in every_error():
        parent, code = drawn[kind.__name__]
        assert parent in (None, kind.__mro__[1].__name__)
        inherited = getattr(kind.__mro__[1], "exit_code", None)
        assert kind.exit_code == (code or inherited)


def test_a_dataset_that_cannot_fit_is_refused_before_anything_is_written(run: Run) -> None:
    size = ("--size", 1024, "--mode", "rgb", "--batch", 1, "--shard-size", 512)
    ended = run("generate", "--n", 100_000_000, "--out", "a", "--dry-run", "--device", "cpu", *size)
    assert ended.code == 4
    assert re.match(r"ganrt: 100,000,000 images need about [\d,]+ (bytes|inodes); [\d,]+ are free\n  \S", ended.err)
    assert not Path("a").exists()


@pytest.mark.parametrize(
    "arguments",
    ["merge {}", "verify {}", "generate --n 5 --out {}", "generate --n 5 --out a --model ./{}.onnx", "models {}"],
)
def test_what_the_system_refuses_is_an_error_and_no_traceback(run: Run, arguments: str) -> None:
    ended = run(*arguments.format("a" * 300).split())
    assert ended.code in (1, 2)
    assert re.match(r"ganrt: .+\n  \S.+\n", ended.err)


def test_an_error_leaves_stdout_empty_with_json(run: Run) -> None:
    ended = run("generate", "--n", 5, "--out", "a", "--classes", "Shoe", "--json")
    assert (ended.code, ended.out) == (2, "")


BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
from ganrt.cli import main
sys.argv = ["ganrt", *{arguments!r}]
main()
"""


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("torch", ["train", "cgan_projection_28", "--data", "d", "--run-dir", "r"]),
        ("torch", ["export", "r", "--out", "a.onnx"]),
        ("torch", ["recipes"]),
        ("onnx", ["export", "r", "--out", "a.onnx"]),
        ("torch", ["export", "--torch", "a:B", "--weights", "w.pt", "--out", "a.onnx"]),
        ("safetensors", ["train", "cgan_projection_28", "--data", "d", "--run-dir", "r"]),
    ],
)
def test_training_commands_name_the_extra_that_is_missing(missing: str, arguments: list[str]) -> None:
    child = process("-c", BLOCK.format(names=[missing], arguments=arguments))
    _, err = child.communicate(timeout=120)
    assert child.returncode == 1
    assert err == (
        f"ganrt: training and export need the package {missing}\n  Install the extra: pip install 'ganrt[train]'\n"
    )


def test_images_are_made_without_any_package_of_training(run: Run) -> None:
    names = ["torch", "onnx", "onnxscript", "safetensors", "ganrt_training", "datasets", "webdataset"]
    arguments = ["generate", "--n", "20", "--out", "a", "--device", "cpu"]
    child = process("-c", BLOCK.format(names=names, arguments=arguments))
    out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (0, "")
    assert out.startswith("20 images in ")
