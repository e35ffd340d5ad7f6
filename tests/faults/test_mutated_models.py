"""Valid files, changed at random: refused, or one model to every reader, which loads and runs or ends in its error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganrt.contract import check_model
from ganrt.errors import ContractError
from ganrt.graphs import ALLOWED_OPS
from tests.faults.conftest import Tally
from tests.faults.forked import Forks, forks
from tests.faults.mutation import mutated, parsed, written
from tests.faults.operators import with_operator
from tests.models import tiny_model, tiny_translator

SMALL = [
    tiny_model(width=2, height=2, z_dim=2, psi=True),
    tiny_model(width=4, height=4, channels=1, z_dim=3, class_names=()),
    tiny_model(num_ws=2, w_dim=3, width=4, height=4),
    tiny_translator(width=4, height=4, channels=1),
    tiny_translator(dynamic=True, scale=2),
]
CHECKED, RUN = "mutated model files, checked", "mutated model files that pass, loaded and run"
OPERATOR = "operators with odd attributes and inputs"

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and forks are those of Linux")


@pytest.fixture(scope="module")
def forked() -> Iterator[Forks]:
    """What runs a model in a process of its own."""
    with forks() as running:
        yield running


def accepted(data: bytes) -> bool:
    """Whether a file passes; if so it must be the same model to protobuf's own parser, should that take it."""
    try:
        card = check_model(data, "gen.onnx")
    except ContractError as error:
        assert all(line.isprintable() for line in str(error).splitlines()), "an error shows what a terminal would obey"
        assert len(str(error)) < 5000 and error.hint
        return False
    try:
        theirs = onnx.load_from_string(data)
    except Exception as error:
        assert type(error).__name__ == "DecodeError"  # of a message that is passed over here; ONNX Runtime says so
        return True
    cards = [entry.value for entry in theirs.metadata_props if entry.key == "ganrt.card"]
    assert len(cards) == 1 and json.loads(cards[0])["name"] == card.name
    assert {node.op_type for node in theirs.graph.node} <= ALLOWED_OPS
    assert not {node.domain for node in theirs.graph.node} - {"", "ai.onnx"}
    assert not theirs.functions and not any(tensor.external_data for tensor in theirs.graph.initializer)
    return True


def test_the_reader_of_fields_changes_nothing() -> None:
    for data in SMALL:
        assert written(parsed(data)) == data and check_model(data, "gen.onnx")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.sampled_from(SMALL), st.integers(0, 1 << 64))
def test_a_mutated_file_is_refused_or_the_same_model_to_every_reader(data: bytes, seed: int) -> None:
    accepted(mutated(data, SMALL, Random(seed)))


def try_mutants(forked: Forks, folder: Path, tally: Tally, first: int, seconds: float, least: int) -> None:
    """Files from seeds on, as many as there is time for, but so many at least."""
    seed, ends = first, time.monotonic() + seconds
    while seed < first + least or time.monotonic() < ends:
        seed += 1
        random = Random(seed)
        data = mutated(random.choice(SMALL), SMALL, random)
        try:
            runs = accepted(data)
        except Exception as error:
            tally.lost(CHECKED, f"seed {seed}: {error!r}")
            continue
        tally.survived(CHECKED)
        if runs:
            run(data, f"seed {seed}", forked, folder, tally, RUN)


def try_operators(forked: Forks, folder: Path, tally: Tally, first: int, seconds: float, least: int) -> None:
    """As ``try_mutants``, with a node each."""
    seed, ends = first, time.monotonic() + seconds
    while seed < first + least or time.monotonic() < ends:
        seed += 1
        run(with_operator(Random(seed)), f"seed {seed}", forked, folder, tally, OPERATOR)


def run(data: bytes, called: str, forked: Forks, folder: Path, tally: Tally, row: str) -> None:
    """Loads and calls a model in a process of its own, which must end with an image or a typed error."""
    path = folder / "mutant.onnx"
    path.write_bytes(data)
    ended = forked.sample(path)
    if ended.code in (0, 1) and not ended.err:
        tally.survived(row)
    else:
        tally.lost(row, f"{called}: exit code {ended.code}: {ended.err[-500:]}")


@linux
def test_some_mutants_load_and_run_or_end_in_a_typed_error(forked: Forks, tmp_path: Path, tally: Tally) -> None:
    try_mutants(forked, tmp_path, tally, 0, seconds=0, least=40)


@linux
@pytest.mark.faults
def test_mutants_load_and_run_or_end_in_a_typed_error(forked: Forks, tmp_path: Path, tally: Tally) -> None:
    try_mutants(forked, tmp_path, tally, 1_000_000, seconds=60, least=500)


@linux
def test_some_operators_run_or_end_in_a_typed_error(forked: Forks, tmp_path: Path, tally: Tally) -> None:
    try_operators(forked, tmp_path, tally, 0, seconds=0, least=40)


@linux
@pytest.mark.faults
def test_operators_run_or_end_in_a_typed_error(forked: Forks, tmp_path: Path, tally: Tally) -> None:
    """Which is found first varies with the machine: a crash found here becomes a rule of ganrt/crashes.py."""
    try_operators(forked, tmp_path, tally, 1_000_000, seconds=40, least=300)
