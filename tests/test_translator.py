"""Image-to-image generators: what they make of images, what they refuse, and how they are told from the others."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

import ganrt
from ganrt.bound import BoundRuns
from tests.models import tiny_model, tiny_translator, tiny_translator_card, tiny_translator_proto, translated
from tests.test_generator import levels_apart

Pixels = NDArray[np.uint8]
Load = Callable[..., ganrt.Translator]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a model, tiny with the given options unless its bytes are given, and loads it."""

    def load(data: bytes | None = None, batch: int | None = None, **options: Any) -> ganrt.Translator:
        path = tmp_path / f"{options.get('name', 'tiny')}.onnx"
        path.write_bytes(tiny_translator(**options) if data is None else data)
        return ganrt.load_translator(path, device="cpu", batch=batch, threads=1)

    return load


def some_images(count: int, width: int = 8, height: int = 8, channels: int = 3) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


# What it makes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"channels": 1}, {"channels": 3, "in_channels": 1, "scale": 2}, {"channels": 1, "in_channels": 3, "scale": 4}],
)
def test_images_are_made_of_images(load: Load, options: dict[str, Any], dynamic: bool) -> None:
    translator = load(width=5, height=7, dynamic=dynamic, **options)
    channels, scale = options.get("channels", 3), options.get("scale", 1)
    x = some_images(3, 5, 7, options.get("in_channels", channels))
    images = translator(x)
    assert images.dtype == np.uint8 and images.shape == (3, 7 * scale, 5 * scale, channels)
    assert levels_apart(images, translated(x, channels, scale)) <= 1
    assert translator(x[:0]).shape == (0, 7 * scale, 5 * scale, channels)


def test_a_translator_tells_what_it_is(load: Load, tmp_path: Path) -> None:
    fixed = load(width=5, height=7, scale=2)
    assert fixed.card == tiny_translator_card(width=5, height=7, scale=2)
    assert (fixed.device, fixed.threads, fixed.batch, fixed.dynamic, fixed.size) == ("cpu", 1, 16, False, (5, 7))
    assert len(fixed.digest or "") == 64
    assert repr(fixed) == "<ganrt.Translator tiny on cpu>"
    dynamic = load(dynamic=True, batch=3)
    assert (dynamic.dynamic, dynamic.size, dynamic.batch) == (True, None, 3)


def test_a_translator_of_any_size_takes_one_after_another(load: Load) -> None:
    translator = load(dynamic=True, scale=2)
    for width, height in ((8, 8), (1, 1), (13, 4), (4, 13)):
        x = some_images(2, width, height)
        assert levels_apart(translator(x), translated(x, scale=2)) <= 1


def test_grey_images_need_no_channel(load: Load) -> None:
    translator = load(channels=1)
    x = some_images(3, channels=1)
    assert np.array_equal(translator(x[..., 0]), translator(x))


def test_images_may_be_views_and_lists_of_arrays(load: Load) -> None:
    translator = load()
    x = some_images(4)
    assert np.array_equal(translator(list(x)), translator(x))
    assert np.array_equal(translator(x[::-1, :, ::-1]), translator(x[::-1, :, ::-1].copy()))


class Watched:
    """A session, on a GPU as it says, that notes the shape of what each run is given or makes."""

    def __init__(self, cuda: bool = False, **options: Any) -> None:
        self._session = onnxruntime.InferenceSession(tiny_translator(**options), providers=["CPUExecutionProvider"])
        self._cuda = cuda
        self.shapes: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [*(["CUDAExecutionProvider"] if self._cuda else []), "CPUExecutionProvider"]

    def run(self, outputs: list[str], feeds: dict[str, Any]) -> Any:
        self.shapes.append(list(feeds["x"].shape))
        return self._session.run(outputs, feeds)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self.shapes.append(binding.get_outputs()[0].shape())
        self._session.run_with_iobinding(binding, options)


def test_images_go_to_the_network_in_batches(load: Load) -> None:
    session = Watched()
    translator = ganrt.load_translator(session)
    assert (translator.device, translator.threads, translator.digest) == ("cpu", None, None)
    x = some_images(37)
    assert np.array_equal(translator(x), load()(x))
    assert session.shapes == [[16, 8, 8, 3], [16, 8, 8, 3], [5, 8, 8, 3]]
    for batch in (1, 5, 37, 64):
        assert levels_apart(load(batch=batch)(x), translator(x)) <= 1


def test_on_a_gpu_every_call_has_one_shape(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganrt.network.bound_runs", lambda device, session: BoundRuns("cpu"))
    session = Watched(cuda=True, dynamic=True, scale=2)
    translator = ganrt.load_translator(session, batch=4)
    assert translator.device == "cuda:0"
    plain = load(dynamic=True, scale=2)
    for x in (some_images(10), some_images(3, 6, 5)):
        assert np.array_equal(translator(x), plain(x))
    assert session.shapes == [[4, 16, 16, 3]] * 3 + [[4, 10, 12, 3]]


def test_many_threads_make_what_one_makes(load: Load) -> None:
    translator = load(dynamic=True, batch=4)
    jobs = [some_images(1 + k % 7, 3 + k % 5, 9) for k in range(64)]
    with ThreadPoolExecutor(8) as threads:
        for made, x in zip(threads.map(translator, jobs), jobs, strict=True):
            assert np.array_equal(made, translator(x))


# Other processes ----------------------------------------------------------------------------------------------------


def translate_in_child(translator: ganrt.Translator) -> tuple[Pixels, str, int]:
    return translator(some_images(5)), translator.device, translator.batch


def test_a_translator_is_loaded_anew_in_another_process(load: Load) -> None:
    translator = load(batch=3)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        images, device, batch = processes.submit(translate_in_child, translator).result()
    assert np.array_equal(images, translator(some_images(5)))
    assert (device, batch) == ("cpu", 3)


def test_a_pickle_is_a_specification(load: Load) -> None:
    pickled = pickle.dumps(load())
    assert len(pickled) < 1000
    assert isinstance(pickle.loads(pickled), ganrt.Translator)
    with pytest.raises(ganrt.UsageError, match="made from a session cannot be pickled"):
        pickle.dumps(ganrt.load_translator(Watched()))
    load(seed=1)
    with pytest.raises(ganrt.ModelError, match=r"tiny\.onnx is not the file that the pickled .*\nLoad it again"):
        pickle.loads(pickled)


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "images", "message"),
    [
        ({}, some_images(2, 40, 30), "images of 40x30: generator tiny takes 8x8\nResize them."),
        ({}, some_images(0, 40, 30), "images of 40x30: generator tiny takes 8x8\nResize them."),
        ({}, some_images(2) / 255, "images of float64\nExpected uint8 [N, 8, 8, 3], 0 to 255: convert them."),
        ({}, some_images(2).tolist(), "images of int64\nExpected uint8"),
        ({}, [some_images(2)[0], some_images(2)[0, 1:]], "images are no array of pixels: "),
        ({}, some_images(2)[0], "images of shape [8, 8, 3]\nExpected [N, 8, 8, 3]; one alone is images[None]."),
        (
            {},
            some_images(2, channels=1),
            "images of 1 channels: generator tiny takes RGB\nConvert them to RGB: [N, 8, 8, 3].",
        ),
        (
            {"channels": 1, "dynamic": True},
            some_images(2),
            "images of 3 channels: generator tiny takes grey\nConvert them to grey: [N, H, W, 1] or [N, H, W].",
        ),
        ({"channels": 1}, some_images(2)[0, 0], "images of shape [8, 3]\nExpected [N, 8, 8, 1] or [N, 8, 8];"),
        ({"channels": 3, "in_channels": 1}, some_images(2), "images of 3 channels: generator tiny takes grey\n"),
        ({"dynamic": True}, some_images(2, 0, 5), "images of 0x5\nExpected at least one pixel."),
    ],
)
def test_images_that_cannot_be_meant(load: Load, options: dict[str, Any], images: Any, message: str) -> None:
    with pytest.raises(ganrt.UsageError) as error:
        load(**options)(images)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch": 0}, "batch 0\nExpected a whole number of 1 to 65536"), ({"threads": 0}, "threads 0\nExpected a whole")],
)
def test_what_load_translator_refuses(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_translator())
    with pytest.raises(ganrt.UsageError, match=message):
        ganrt.load_translator(tmp_path / "tiny.onnx", "cpu", **options)
    with pytest.raises(ganrt.UsageError, match="provider options do not apply to the device cpu"):
        ganrt.load_translator(tmp_path / "tiny.onnx", "cpu", provider_options={"use_tf32": 1})


def test_each_kind_is_loaded_by_its_own_function(tmp_path: Path) -> None:
    of_images, of_latents = tmp_path / "images.onnx", tmp_path / "latents.onnx"
    of_images.write_bytes(tiny_translator())
    of_latents.write_bytes(tiny_model())
    providers = ["CPUExecutionProvider"]
    for model in (of_images, onnxruntime.InferenceSession(of_images.read_bytes(), providers=providers)):
        with pytest.raises(ganrt.UsageError, match="image-to-image: it takes images, not latents\n.*load_translator"):
            ganrt.load(model)
    for model in (of_latents, onnxruntime.InferenceSession(of_latents.read_bytes(), providers=providers)):
        with pytest.raises(
            ganrt.UsageError, match="latent-to-image: it takes latents, not images\nLoad it with ganrt.load,"
        ):
            ganrt.load_translator(model)


def test_nothing_that_draws_samples_takes_a_translator(tmp_path: Path) -> None:
    path = tmp_path / "images.onnx"
    path.write_bytes(tiny_translator())
    calls: list[Callable[[], object]] = [
        lambda: ganrt.generate(path, n=1, out=tmp_path / "out", device="cpu"),
        lambda: ganrt.forecast(path, n=1, out=tmp_path / "out", device="cpu"),
        lambda: ganrt.preview(path, device="cpu"),
        lambda: ganrt.bench(path, seconds=0.01, device="cpu"),
    ]
    for call in calls:
        with pytest.raises(ganrt.UsageError, match="generator tiny is image-to-image: it takes images, not latents"):
            call()
    assert list(tmp_path.iterdir()) == [path]


# What fails while it runs -------------------------------------------------------------------------------------------


def halving(skip: bool = False, **options: Any) -> bytes:
    """A generator that halves its images and doubles them again, as many do; with ``skip`` adding what was before."""
    model = tiny_translator_proto(scale=2, card_changes={"scale": 1, "width": 8, "height": 8}, **options)
    [conv] = [node for node in model.graph.node if node.op_type == "Conv"]
    at = list(model.graph.node).index(conv)
    pool = helper.make_node("AveragePool", [conv.input[0]], ["halved"], kernel_shape=[2, 2], strides=[2, 2])
    model.graph.node.insert(at, pool)
    model.graph.node[at + 1].input[0] = "halved"
    if skip:
        [resize] = [node for node in model.graph.node if node.op_type == "Resize"]
        resize.output[0] = "doubled"
        model.graph.node.insert(at + 3, helper.make_node("Add", ["doubled", conv.input[0]], ["large"]))
    if not options.get("dynamic"):
        for dim in model.graph.output[0].type.tensor_type.shape.dim[1:3]:
            dim.dim_value = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_a_size_that_the_network_cannot_keep_is_an_error_that_says_so(load: Load) -> None:
    assert load(halving())(some_images(2)).shape == (2, 8, 8, 3)
    translator = load(halving(dynamic=True))
    assert translator(some_images(2, 6, 4)).shape == (2, 4, 6, 3)
    with pytest.raises(ganrt.InferenceError) as error:
        translator(some_images(2, 7, 5))
    assert str(error.value) == (
        "generator tiny made uint8 [2, 4, 6, 3], not uint8 [2, 5, 7, 3]\n"
        "The network may not take this size: try sides that are multiples of 32."
    )
    with pytest.raises(ganrt.InferenceError, match=r"ONNX Runtime: .*\nThe network may not take this size"):
        load(halving(skip=True, dynamic=True))(some_images(2, 7, 5))


def test_what_onnx_runtime_says_of_a_fixed_size_is_told(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Watched()
    translator = ganrt.load_translator(session)

    def fail(message: str) -> Callable[..., Any]:
        def run(outputs: list[str], feeds: dict[str, Any]) -> Any:
            raise RuntimeError(message)

        return run

    monkeypatch.setattr(session, "run", fail("Something broke"))
    with pytest.raises(ganrt.InferenceError, match="ONNX Runtime: Something broke\nExport the generator again"):
        translator(some_images(2))
    monkeypatch.setattr(session, "run", fail("Failed to allocate memory"))
    with pytest.raises(
        ganrt.InferenceError, match=r"a batch of 2 does not fit into memory\nUse a smaller batch \(--batch\), or"
    ):
        translator(some_images(2))
