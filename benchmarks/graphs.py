"""``python -m benchmarks graphs``: the network alone: as exported, with each rewrite of its graph, and in PyTorch."""

from __future__ import annotations

import argparse
import contextlib
import copy
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from benchmarks.networks import NAMES, Network, as_generator, network
from benchmarks.rounds import BATCH, Timed, in_turn, machine, memory_folder, write_json
from ganrt.benchmark import calls
from ganrt.contract import read_model
from ganrt.generator import load_checked
from ganrt.providers import cpu_count, runtime
from ganrt.samples import check_samples
from ganrt_training import tune
from ganrt_training.describe import macs_of

# Rewrites of ganrt_training.tune that are put out of work, by the row's name.
WITHOUT = {
    "as exported": ("_fold_affine", "_as_gemm", "_as_transposed"),
    "affine maps folded": ("_as_gemm", "_as_transposed"),
    "and the first layer a Gemm": ("_as_transposed",),
    "and the last one transposed": (),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=NAMES, action="append", help="again for several; all unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long a run takes")
    parser.add_argument("--json", type=Path)


def run(options: argparse.Namespace) -> int:
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    results = []
    for name in options.model or NAMES:
        results.append(measure(name, options.rounds, options.seconds))
        print(table(results[-1]), flush=True)
    write_json(options.json, results)
    return 0


def measure(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Every way to run one network, in turn: a caller a processor with one thread each, batches of 64."""
    cores = cpu_count()
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        net, out = network(name, Path(folder)), Path(folder) / "set"
        ways: dict[str, Callable[[int, Path], object]] = {}
        pixels: dict[str, Any] = {}
        for row, without in WITHOUT.items():
            path = Path(folder) / f"{len(ways)}.onnx"
            with contextlib.ExitStack() as patches:
                for rewrite in without:
                    patches.enter_context(mock.patch.object(tune, rewrite, lambda *_: None))
                path.write_bytes(as_generator(net))
            ways[f"ONNX Runtime, {row}"], pixels[row] = _onnxruntime(path, cores)
        if any(node.op_type == "ConvTranspose" for node in onnx.load(path).graph.node):
            (Path(folder) / "subpixel.onnx").write_bytes(subpixel(path.read_bytes()))
            row = "all that, sub-pixel convolutions"
            ways[f"ONNX Runtime, {row}"], pixels[row] = _onnxruntime(Path(folder) / "subpixel.onnx", cores)
        ways["ONNX Runtime, all that, denormals kept"] = _onnxruntime(path, cores, denormals=True)[0]
        ways["PyTorch eager"] = _torch(net, cores)
        ways["PyTorch channels-last"] = _torch(net, cores, channels_last=True)
        ways["PyTorch channels-last bf16"] = _torch(net, cores, channels_last=True, half=True)
        load = min(_load(net.path) for _ in range(5))
        timed = [Timed(row, way, out) for row, way in ways.items()]
        in_turn(timed, rounds, seconds)
    base = pixels["as exported"].astype(int)
    return {
        "model": name,
        "load_seconds": load,
        "mflop_an_image": round(_flop(net) / 1e6, 2),
        "product_gflop_a_second": round(products(cores) / 1e9, 1),
        "rows": [
            {"way": t.name, "images_per_second": t.median, "spread": t.spread, "over_exported": t.over(timed[0])}
            for t in timed
        ],
        "levels_apart": {row: int(abs(found - base).max()) for row, found in pixels.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"\n{result['model']}: the network alone, batch {BATCH}, {cpu_count()} callers with one thread each"]
    for row in result["rows"]:
        lines.append(
            f"  {row['way']:47}{row['images_per_second']:>10,.0f} images/s, spread {row['spread']:.1%}, "
            f"x{row['over_exported']:.2f}"
        )
    best = max(row["images_per_second"] for row in result["rows"] if row["way"].startswith("ONNX"))
    used, most = result["mflop_an_image"] * best / 1e3, result["product_gflop_a_second"]
    lines.append(
        f"  {result['mflop_an_image']:,.1f} million operations an image: {used:,.0f} of the {most:,.0f} GFLOP/s that "
        f"numpy's float32 matrix products reach here, {used / most:.0%}"
    )
    lines.append(f"  checking and loading the file takes {result['load_seconds']:.3f} s, once a run")
    apart = max(result["levels_apart"].values())
    lines.append(f"  the rewritten graphs' pixels are at most {apart} grey level{'' if apart == 1 else 's'} apart")
    return "\n".join(lines)


def _load(path: Path) -> float:
    began = time.perf_counter()
    load_checked(read_model(path), path, "cpu", BATCH, 1)
    return time.perf_counter() - began


def _onnxruntime(path: Path, callers: int, denormals: bool = False) -> tuple[Callable[[int, Path], object], Any]:
    generator = load_checked(read_model(path), path, "cpu", BATCH, 1)
    if denormals:
        options = runtime().SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        generator._session = runtime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    samples = check_samples(generator.card)
    return lambda n, out: calls(generator, samples, BATCH, callers, n=n), generator.sample(256)


def subpixel(data: bytes) -> bytes:
    """Each transposed convolution 4x4 of stride 2 and pad 1 as a convolution 2x2 to four times the channels, which are
    then moved to where they belong (Shi et al. 2016, sub-pixel convolution): as many operations but for the edges.
    """
    model = onnx.load_model_from_string(data)
    graph, nodes = model.graph, list[onnx.NodeProto]()
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, value in (("from", [1, 1]), ("to", [-1, -1]), ("axes", [2, 3])):
        graph.initializer.append(numpy_helper.from_array(np.array(value), f"crop/{name}"))
    for node in graph.node:
        settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type != "ConvTranspose" or settings.get("strides") != [2, 2]:
            nodes.append(node)
            continue
        weight = tensors[node.input[1]]
        assert weight.shape[2:] == (4, 4) and settings["pads"] == [1, 1, 1, 1]
        before, after = weight.shape[:2]
        # (in, out, row of two, row within, column of two, column within), of which the far two come first
        parts = weight.reshape(before, after, 2, 2, 2, 2)[:, :, ::-1, :, ::-1]
        kernel = parts.transpose(3, 5, 1, 0, 2, 4).reshape(4 * after, before, 2, 2)
        y, new = node.output[0], f"subpixel/{node.output[0]}"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(kernel), f"{new}/kernel"))
        inputs = [node.input[0], f"{new}/kernel"]
        if len(node.input) > 2:
            graph.initializer.append(numpy_helper.from_array(np.tile(tensors[node.input[2]], 4), f"{new}/bias"))
            inputs.append(f"{new}/bias")
        nodes += [
            onnx.helper.make_node("Conv", inputs, [f"{new}/parts"], kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
            onnx.helper.make_node("DepthToSpace", [f"{new}/parts"], [f"{new}/whole"], blocksize=2, mode="DCR"),
            onnx.helper.make_node("Slice", [f"{new}/whole", "crop/from", "crop/to", "crop/axes"], [y]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _flop(net: Network) -> int:
    """Multiplications and additions of an image's layers."""
    z = torch.zeros(1, net.z_dim)
    return 2 * macs_of(net.module, *((z, torch.zeros(1, dtype=torch.int64)) if net.classes else (z,)))


def products(cores: int, side: int = 1024) -> float:
    """Operations a second of float32 matrix products on all processors, the best of a few."""
    matrix = np.ones((side, side), np.float32)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(cores):
            matrix @ matrix
        times.append(time.perf_counter() - began)
    return 2.0 * side**3 * cores / min(times)


def _torch(
    net: Network, callers: int, channels_last: bool = False, half: bool = False
) -> Callable[[int, Path], object]:
    module = copy.deepcopy(net.module)
    if channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((BATCH, net.z_dim), np.float32))
    inputs = (z, torch.arange(BATCH) % net.classes) if net.classes else (z,)

    def call(batches: int) -> None:
        torch.set_num_threads(1)  # of this thread's calls
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            for _ in range(batches):
                x = module(*inputs).float()
                (x * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def run(n: int, out: Path) -> None:
        before, batches = torch.get_num_threads(), n // BATCH
        shares = [batches // callers + (number < batches % callers) for number in range(callers)]
        crew = [threading.Thread(target=call, args=(share,)) for share in shares]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        torch.set_num_threads(before)

    return run
