"""What ganrt is built on: lower limits above known vulnerabilities, and the audit of what is pinned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
]
# The first version without: CVE-2026-34446, -34447 and -27489 (onnx: files outside the model's folder are read);
# CVE-2025-32434, CVE-2026-24747 and -4538 (torch: code in weights); CVE-2025-1550, -8747, -9905, -9906, -12058, -49655
# and CVE-2026-0897 and -1462 (keras: code in models, safe mode passed by); CVE-2026-112403 and -112398 (Pillow 13.0:
# JPEG decoder writes past its buffer). Those of onnxruntime are what ganrt is tested with.
SAFE = {
    "onnx": "1.21",
    "onnxruntime": "1.27",
    "onnxruntime-gpu": "1.27",
    "torch": "2.11",
    "keras": "3.14",
    "pillow": "13.0",
}
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


@pytest.mark.parametrize("name", SAFE)
def test_no_version_with_a_known_vulnerability_may_be_installed(name: str) -> None:
    """Neither by pyproject.toml nor by constraints.txt."""
    mine = [requirement for requirement in REQUIREMENTS if requirement.name == name]
    assert mine
    for requirement in mine:
        lowest = [Version(limit.version) for limit in requirement.specifier if limit.operator == ">="]
        assert lowest and max(lowest) >= Version(SAFE[name]), str(requirement)
    assert Version(PINS[name]) >= Version(SAFE[name])


def test_everything_that_is_asked_for_has_a_lower_limit_and_a_pin_above_it() -> None:
    """What make test installs is what was tested."""
    for requirement in REQUIREMENTS:
        if requirement.name == "ganrt":
            continue
        assert any(limit.operator == ">=" for limit in requirement.specifier), str(requirement)
        assert requirement.specifier.contains(PINS[requirement.name]), str(requirement)


def test_continuous_integration_installs_what_is_pinned_and_audits_it() -> None:
    """Each target that installs names constraints.txt."""
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "$(PIP) install" in line]
    assert installs and all("--constraint constraints.txt" in line for line in installs)
    assert {"make test", "make audit"} <= set((ROOT / ".ci" / "run").read_text().splitlines())


class Database(BaseHTTPRequestHandler):
    """Answers as osv.dev does: pillow 1.0 has one vulnerability, whatever else has none."""

    answer: bytes | None = None  # instead

    def do_POST(self) -> None:
        """The answer to /v1/querybatch."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        bad = {"package": {"name": "pillow", "ecosystem": "PyPI"}, "version": "1.0"}
        results = [{"vulns": [{"id": "PYSEC-2026-1"}]} if query == bad else {} for query in asked]
        self.send_response(200 if self.path == "/v1/querybatch" else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"results": results}).encode() if self.answer is None else self.answer)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a database on this machine."""
    server = HTTPServer(("127.0.0.1", 0), Database)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def audit(folder: Path, pins: str, url: str) -> subprocess.CompletedProcess[str]:
    """What the audit of some pins says."""
    (folder / "constraints.txt").write_text(f"# pinned\n\n{pins}")
    environment = {**os.environ, "OSV_URL": url, "no_proxy": "*"}
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), str(folder / "constraints.txt")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_a_known_vulnerability_fails_the_audit_and_is_named(tmp_path: Path, database: str) -> None:
    """With the address where it is described."""
    done = audit(tmp_path, "numpy==2.0\npillow==1.0\n", database)
    assert (done.returncode, done.stdout) == (1, "audit: 2 versions, 1 known vulnerabilities\n")
    assert done.stderr == "audit: pillow 1.0: https://osv.dev/vulnerability/PYSEC-2026-1\n"


def test_an_audit_that_finds_nothing_passes(tmp_path: Path, database: str) -> None:
    """And says how much it asked for."""
    done = audit(tmp_path, "numpy==2.0\npillow==13.0\n", database)
    assert (done.returncode, done.stdout, done.stderr) == (0, "audit: 2 versions, 0 known vulnerabilities\n", "")


@pytest.mark.parametrize(
    "answer", [b"<html>sign in</html>", b"{}", b'{"results": []}', b'{"results": [1, 2]}', b"null"]
)
def test_what_is_no_answer_of_the_database_is_a_warning(
    tmp_path: Path, database: str, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A captive portal, say."""
    monkeypatch.setattr(Database, "answer", answer)
    done = audit(tmp_path, "numpy==2.0\npillow==1.0\n", database)
    assert done.returncode == 0 and done.stderr.startswith("audit: WARNING, nothing was checked: ")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_database_that_cannot_be_reached_is_a_warning_within_seconds(tmp_path: Path, url: str) -> None:
    """Continuous integration goes on without a network."""
    began = time.monotonic()
    done = audit(tmp_path, "numpy==2.0\n", url)
    assert done.returncode == 0 and done.stderr.startswith("audit: WARNING, nothing was checked: ")
    assert time.monotonic() - began < 30  # it is 5 at most, and this machine may be busy
