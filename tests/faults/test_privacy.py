"""Nothing goes out, and nothing of the machine goes into what is written: the whole path, watched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.datasets import ROOT, files, model_file
from tests.faults.conftest import Tally
from tests.pictures import folder_of, translator_file
from tests.test_cli import SMALLEST

pytestmark = pytest.mark.skipif(os.name == "nt", reason="bash, unshare and /proc")
TAG = "zqx"  # in every name that must not be found again

# Runs in every Python that is started: whatever opens or prepares a connection fails.
DENY = """
import sys

def deny(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto",
                 "socket.sendmsg", "urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect"):
        sys.stderr.write(f"DENIED {event} {arguments!r}\\n")
        raise PermissionError(f"no network: {event}")

sys.addaudithook(deny)
"""
QUICK = """
ganrt generate --n 60 --out $OUT/png --model $MODELS/tiny.onnx
ganrt generate --n 8 --out $OUT/webp --model $MODELS/tiny.onnx --format webp --layout webdataset
ganrt translate $MODELS/pix.onnx $PHOTOS $OUT/translated
ganrt preview $OUT/png --out $OUT/preview.png
"""
RUNTIME = """
ganrt models && ganrt models --verify && ganrt inspect ./tiny.onnx
ganrt generate --n 40 --out $OUT/png --model $MODELS/tiny.onnx --shard-size 16 --batch 8
ganrt generate --n 60 --out $OUT/png --model $MODELS/tiny.onnx --shard-size 16 --batch 8
ganrt generate --n 8 --out $OUT/jpeg --model $MODELS/tiny.onnx --format jpeg --part a
ganrt generate --n 8 --out $OUT/webp --model $MODELS/tiny.onnx --format webp --layout webdataset
ganrt generate --n 8 --out $OUT/npy --model $MODELS/tiny.onnx --layout npy
ganrt preview $OUT/png --out $OUT/preview.png
ganrt verify $OUT/png --repair --model $MODELS/tiny.onnx
ganrt merge $OUT/png
ganrt explain $OUT/png 3 --model $MODELS/tiny.onnx --out $OUT/explained.png
ganrt interpolate $MODELS/tiny.onnx --frames 2 --out $OUT/walk.gif
ganrt interpolate $MODELS/tiny.onnx --frames 2 --out $OUT/walk.webp
ganrt style-mix $MODELS/tiny.onnx --out $OUT/mix.png
ganrt translate $MODELS/pix.onnx $PHOTOS $OUT/translated --layout webdataset
"""
TRAINING = f"""
ganrt interpolate $MODELS/tiny.onnx --frames 2 --out $OUT/walk.mp4
ganrt generate --n 40 --out $OUT/several --model $MODELS/tiny.onnx --shard-size 8 --batch 8 --processes 2
ganrt train cgan_projection_28 {SMALLEST} --data $PHOTOS --run-dir $OUT/run --device cpu
ganrt export $OUT/run --out $OUT/exported.onnx --name exported
ganrt generate --n 8 --out $OUT/own --model $OUT/exported.onnx
"""


def watched(folder: Path, script: str, wrap: list[str]) -> tuple[Path, str]:
    """Runs commands where names are telling and no connection is allowed: what they wrote, and what they said."""
    home, models, photos = (folder / f"{TAG}-{name}" for name in ("home", "models", "photos"))
    out = folder / f"{TAG}-out"
    for made in (home, models, out, folder / "hook"):
        made.mkdir()
    (folder / "hook/sitecustomize.py").write_text(DENY)
    model_file(models, num_ws=4, w_dim=6)
    translator_file(models, "pix", width=28, height=28)
    folder_of(photos, [f"{'ab'[k % 2]}/{k}.png" for k in range(16)], width=28, height=28)
    told = {"USER": f"{TAG}-user", "LOGNAME": f"{TAG}-user", "HOSTNAME": f"{TAG}-host", "HOME": str(home)}
    places = {"OUT": str(out), "MODELS": str(models), "PHOTOS": str(photos), "PY": sys.executable}
    path = os.pathsep.join(map(str, (folder / "hook", ROOT, ROOT / "training")))
    environment = {**os.environ, **told, **places, "PYTHONPATH": path}
    for name in ("ORT_DISABLE_TELEMETRY", "GANRT_MODELS"):
        environment.pop(name, None)
    host = f"hostname {TAG}-host; " if "unshare" in wrap else ""
    denied = """"$PY" -c 'import socket; socket.create_connection(("127.0.0.1", 9))' 2>&1 | grep -q 'no network: '; """
    shell = f'set -e; {denied}{host}ganrt() {{ "$PY" -m ganrt "$@"; }}; cd $MODELS; {script}'
    done = subprocess.run(
        [*wrap, "bash", "-c", shell], env=environment, capture_output=True, text=True, timeout=900, errors="replace"
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return out, said


def isolated() -> list[str]:
    """What starts a program without a network and with a host name of its own, where that is permitted."""
    for flags in ("-nu", "-rnu"):
        if shutil.which("unshare") and not subprocess.run(["unshare", flags, "true"], capture_output=True).returncode:
            return ["unshare", flags]
    return []


def every_byte(path: Path) -> Iterator[tuple[str, bytes]]:
    """A file's bytes, those of what is packed in it, and what an image says of itself."""
    yield path.name, path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from ((f"{path.name}: {name}", archive.read(name)) for name in archive.namelist())
    elif path.suffix == ".tar":
        with tarfile.open(path) as packed:
            for member in packed:
                about = f"{member.uname} {member.gname} {member.mtime} {member.uid} {member.gid}"
                assert about == "  0 0 0", f"{path.name}: {member.name}: {about}"
    elif path.suffix in (".png", ".jpg", ".webp", ".gif"):
        with Image.open(path) as image:
            yield f"{path.name}: about", repr((image.info, dict(image.getexif()))).encode()


def traces() -> list[bytes]:
    """What tells of this machine and this moment."""
    now = time.time()
    forms = ("%Y-%m-%d", "%Y%m%d", "%Y:%m:%d", "%d %b %Y")
    days = [time.strftime(form, time.gmtime(now - ago)) for ago in (0, 86400) for form in forms]
    moment = f"(?<![0-9.]){int(now) // 100_000}[0-9]{{5}}(?![0-9])"
    system = os.uname()  # names that are too short are found by chance
    names = [re.escape(name) for name in (system.nodename, system.release) if len(name) > 7]
    found = [TAG + "-", re.escape(str(ROOT)), *names, *days, moment]
    if match := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()):
        found.append(re.escape(match[1].strip()))
    return [text.encode() for text in found]


def check(tally: Tally, out: Path, said: str) -> None:
    """No denied call was made, and no trace is in any file."""
    if "DENIED" in said:
        tally.lost("network: a connection in normal use", said[said.index("DENIED") :][:300])
    else:
        tally.survived("network: a connection in normal use")
    patterns, count = traces(), 0
    for path in files(out):
        for name, data in every_byte(path):
            for pattern in patterns:
                if found := re.search(pattern, data):
                    around = data[max(0, found.start() - 60) : found.end() + 40]
                    tally.lost("privacy: the machine in a file", f"{path.relative_to(out)} ({name}): {around!r}")
            count += 1
    assert count > 100
    tally.survived("privacy: the machine in a file", count)


def test_making_datasets_needs_no_network_and_tells_nothing_of_the_machine(tmp_path: Path, tally: Tally) -> None:
    """In children that may not connect; every byte of what they wrote is looked at."""
    check(tally, *watched(tmp_path, QUICK, isolated()))


@pytest.mark.faults
def test_all_that_the_runtime_does_needs_no_network_and_tells_nothing(tmp_path: Path, tally: Tally) -> None:
    """Every layout and format, resume, repair, pictures, animations."""
    check(tally, *watched(tmp_path, RUNTIME, isolated()))


@pytest.mark.faults
def test_training_and_exporting_need_no_network_and_tell_nothing_either(tmp_path: Path, tally: Tally) -> None:
    """Run folder, checkpoints, report.html, an exported generator, a film, and a run of several processes."""
    check(
        tally,
        *watched(tmp_path, TRAINING + "ganrt generate --n 60 --model $MODELS/tiny.onnx --out $OUT/more", isolated()),
    )


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("strace"), reason="strace, to see what libraries do")
def test_no_library_connects_behind_pythons_back(tmp_path: Path, tally: Tally) -> None:
    """System calls of the whole process tree: no socket of the internet is opened at all."""
    log = tmp_path / "calls"
    wrap = ["strace", "-f", "-qq", "-e", "trace=socket,connect,sendto,sendmsg", "-o", str(log)]
    if subprocess.run([*wrap, "true"], capture_output=True).returncode:
        pytest.skip("strace is not permitted here")
    watched(
        tmp_path,
        "ganrt generate --n 40 --model ./tiny.onnx --out $OUT/a; ganrt preview ./tiny.onnx --out $OUT/p.png",
        wrap,
    )
    calls = [line for line in log.read_text().splitlines() if "AF_INET" in line]
    if calls:
        tally.lost("network: a connection in normal use", calls[0])
    else:
        tally.survived("network: a connection in normal use")


@pytest.mark.parametrize("first", ["", "import onnxruntime; "])
def test_telemetry_of_onnx_runtime_is_off(tmp_path: Path, tally: Tally, first: str) -> None:
    """Also where a program has imported ONNX Runtime before: then by the function that ONNX Runtime has for it."""
    model = model_file(tmp_path)
    code = (
        f"import os; {first}import ganrt\n"
        "from ganrt.providers import runtime\n"
        "said = []\n"
        "ort = runtime()\n"
        "ort.disable_telemetry_events = lambda: said.append('off')\n"
        f"ganrt.load({str(model)!r}, 'cpu').sample(1)\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], bool(said))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "True"], done.stderr
    tally.survived("telemetry of ONNX Runtime")
