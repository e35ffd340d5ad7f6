"""The benchmarks can be run: nothing is said here about what they find."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from tests.datasets import ROOT, model_file, run


def test_every_benchmark_is_listed() -> None:
    shown = run([sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT).stdout
    for name in ("generate", "scaling", "memory", "startup", "encode", "graphs", "goals", "networks"):
        assert f"    {name} " in shown
    text = (ROOT / "docs" / "performance.md").read_text()
    for name in ("generate", "scaling", "memory", "startup", "encode", "graphs", "goals", "networks"):
        assert f"python -m benchmarks {name}" in text


def test_the_script_for_gpus_needs_nothing_but_the_package_and_a_model(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    shutil.copy(ROOT / "benchmarks" / "gpu.py", tmp_path / "alone")
    model_file(tmp_path / "alone")
    words = "--device cpu --seconds 0.01 --rounds 1 --json gpu.json --out"
    command = [sys.executable, "gpu.py", *words.split(), str(tmp_path)]
    done = run(command, cwd=tmp_path / "alone")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "alone" / "gpu.json").read_text())
    assert told["device"] == "cpu" and list(told["models"]) == ["tiny"]
    rows = told["models"]["tiny"]
    for name in ("ganrt folder, batch 64", "ganrt webdataset, batch 256", "ganrt npy, batch 64"):
        assert rows[name]["images_per_second"] > 0 and rows[name]["mb_moved_a_second"] > 0
    assert any(name.startswith("network fp32 batch 1024") for name in rows)
    assert all(name in done.stdout for name in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone"]


def test_the_script_for_gpus_compares_the_pixels_of_processes(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--same", "2", "--out", str(tmp_path)]
    done = run([sys.executable, str(ROOT / "benchmarks" / "gpu.py"), str(model_file(tmp_path)), *words])
    assert done.returncode == 0, done.stderr
    assert re.search(r"^tiny +cpu +1 different of 2; [\d,]+, [\d,]+ images/s$", done.stdout, re.MULTILINE)
