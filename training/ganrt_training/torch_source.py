"""Somebody's PyTorch generator, from its own code and weights, as a source of export."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import json
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ganrt.errors import TrainingError, UsageError
from ganrt_training.export import traced
from ganrt_training.foreign import Floats, Foreign, Input
from ganrt_training.probing import LABEL_NAME, Said
from ganrt_training.torch_weights import load_weights

_TRIED = 6  # layers whose sizes may be the latent's


def open_torch(
    code: str,
    weights: Path,
    said: Said | None = None,
    *,
    args: str | None = None,
    key: str | None = None,
    z_shape: Sequence[int] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Foreign:
    """The network that ``code`` makes, with the weights of a file.

    ``code`` is ``package.module:callable`` or ``file.py:callable``, a class or function that returns a network; it is
    imported, from the current folder too, which runs it: give only code that you trust. ``args`` is JSON, an object of
    keyword arguments or a list. ``weights`` and ``key`` are as for :func:`load_weights`. ``z_shape`` is that of a
    latent after N; unless given, it is found by trying what the first layers take.

    Raises UsageError when an argument is wrong or missing, TrainingError when the code fails, when the weights do not
    fit, and when the network makes no images of latents.
    """
    said = said or Said()
    make = _callable(code)
    given, named = _arguments(args)
    try:
        with torch.random.fork_rng(devices=[]):
            network = make(*given, **named)
    except Exception as error:
        raise TrainingError(
            f"{code}: cannot be called: {type(error).__name__}: {error}",
            'Give its arguments as JSON: --torch-args \'{"ngpu": 1}\' or --torch-args "[100, 64]"',
        ) from error
    if not isinstance(network, nn.Module):
        raise TrainingError(
            f"{code}: makes {type(network).__name__}, not a network", "Expected a class or function of torch.nn.Module."
        )
    network = network.cpu().float()
    taken = load_weights(network, weights, key)
    if taken and key is None:
        tell(f"weights: those under the key {taken!r}, which alone fit; --key fixes it")
    images = _Images(network).eval()
    inputs = _find_inputs(code, images, said, z_shape)
    if z_shape is None:
        tell(f"latents: {inputs[0]}, found by trying; --z-shape {','.join(map(str, inputs[0].shape))} fixes it")
    return Foreign(
        where=code,
        digest=f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}",
        inputs=inputs,
        run=_runner(images),
        graph=lambda: _graph(images, inputs),
    )


class _Images(nn.Module):
    """A network that gives its images alone: of a tuple the one tensor that can be them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        names = [*inspect.signature(network.forward).parameters]
        self.labels_first = len(names) > 1 and bool(LABEL_NAME.search(names[0])) and not LABEL_NAME.search(names[1])

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        given = (z,) if y is None else (y, z) if self.labels_first else (z, y)
        made = self.network(*given)
        if isinstance(made, (tuple, list)):
            images = [x for x in made if isinstance(x, Tensor) and x.ndim == 4]
            if len(images) == 1:
                return images[0]
        if not isinstance(made, Tensor):
            raise TypeError(f"it returns {type(made).__name__}, not a tensor of images")
        return made


def _callable(code: str) -> Callable[..., Any]:
    """What ``module:name`` or ``file.py:name`` names."""
    where, colon, name = code.rpartition(":")
    if not (where and colon and name):
        raise UsageError(
            f"torch {code!r}", "Expected package.module:callable or file.py:callable, as in dcgan:Generator."
        )
    with _importing():
        try:
            module = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        except FileNotFoundError as error:
            raise UsageError(f"{where}: there is no such file", "Name the file that defines the network.") from error
        except (Exception, SystemExit) as error:  # whatever a script does when it is imported
            raise TrainingError(
                f"{where}: cannot be imported: {type(error).__name__}: {error}",
                "Run ganrt where Python finds it. A script that trains when it is imported wants its network in a "
                "module of its own.",
            ) from error
    try:
        found: Callable[..., Any] = operator.attrgetter(name)(module)
    except AttributeError:
        named = [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, nn.Module)]
        raise UsageError(f"{where} has no {name!r}", f"Its networks: {', '.join(named) or 'none'}.") from None
    if not callable(found):
        raise UsageError(f"{code}: is no class or function", "Expected what makes the network.")
    return found


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles of the module look for it there
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """The current folder is searched, as ``python -m`` does, and scripts see no arguments but their own."""
    path, argv = list(sys.path), list(sys.argv)
    sys.path.insert(0, str(Path.cwd()))
    sys.argv[1:] = []
    try:
        yield
    finally:
        sys.path[:], sys.argv[:] = path, argv


def _arguments(text: str | None) -> tuple[list[Any], dict[str, Any]]:
    if text is None:
        return [], {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"torch args {text!r}: no JSON: {error}", "Expected an object or a list.") from None
    if isinstance(value, dict):
        return [], value
    if isinstance(value, list):
        return value, {}
    raise UsageError(f"torch args {text!r}", 'Expected an object, as in {"ngpu": 1}, or a list.')


def _find_inputs(code: str, images: _Images, said: Said, z_shape: Sequence[int] | None) -> tuple[Input, ...]:
    """The shape of latents, and the form of labels if there are any, with which the network makes images."""
    if z_shape is not None and (not z_shape or min(z_shape) < 1):
        raise UsageError(f"z shape {','.join(map(str, z_shape))}", "Expected sizes after N: --z-shape 100,1,1")
    labels: list[Input | None] = [*_labels(images.network, said)] if _takes_labels(code, images, said) else [None]
    failures: list[str] = []
    fitting: list[tuple[Input, ...]] = []
    for label in labels:
        shapes = [tuple(z_shape)] if z_shape is not None else _z_shapes(images.network, label)
        for shape in shapes:
            inputs = (Input("z", "float32", shape), *([label] if label else []))
            try:
                made = _runner(images)(*(np.zeros((2, *i.shape), i.dtype) for i in inputs))
                if made.ndim != 4 or len(made) != 2:
                    failures.append(f"{', '.join(map(str, inputs))} gave {list(made.shape)}")
                    continue
            except Exception as error:
                failures.append(f"{', '.join(map(str, inputs))}: {(str(error) or repr(error)).splitlines()[0][:200]}")
                continue
            fitting.append(inputs)
    fitting = _different(images, fitting)
    if len(fitting) > 1:
        ways = "; ".join(", ".join(map(str, inputs)) for inputs in fitting[:6])
        raise UsageError(
            f"{code}: makes images of inputs of several forms: {ways}",
            "Say which: --z-shape 100 or --z-shape 100,1,1, and --labels int or --labels onehot.",
        )
    if not fitting:
        tried = "\n  ".join(failures[:6]) or "nothing, since none of its first layers tells a size"
        raise TrainingError(
            f"{code}: makes no images [N, C, H, W] of what was tried:\n  {tried}",
            "Say what it takes: --z-shape 100 or --z-shape 100,1,1, and for labels --classes a,b,c. Images that come "
            "out flat want a reshape at the end of forward, such as .view(-1, 1, 28, 28).",
        )
    return fitting[0]


def _takes_labels(code: str, images: _Images, said: Said) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p for p in inspect.signature(images.network.forward).parameters.values() if p.kind in kinds]
    needed = [p for p in taken if p.default is inspect.Parameter.empty]
    wanted = bool(said.class_names or said.labels)
    shown = ", ".join(p.name for p in taken)
    if len(needed) > 2:
        raise TrainingError(
            f"{code}: its forward takes {shown}",
            "Expected latents, and at most labels: write a small network that calls it with the rest.",
        )
    if wanted and len(taken) < 2:
        raise UsageError(f"{code}: its forward takes {shown} and no labels", "Leave the classes out.")
    if len(needed) == 2 and not wanted and not _tables(images.network):
        raise UsageError(
            f"{code}: its forward takes {shown}: two inputs", "Name its classes, in order: --classes a,b,c"
        )
    return wanted or len(needed) == 2


def _tables(network: nn.Module) -> list[int]:
    return [layer.num_embeddings for layer in network.modules() if isinstance(layer, nn.Embedding)]


def _labels(network: nn.Module, said: Said) -> Iterator[Input]:
    """The forms that labels may have."""
    if said.labels != "onehot":
        yield Input("y", "int64", ())
        if said.labels or _tables(network):  # else a network of one-hot labels may take it for one number more
            yield Input("y", "int64", (1,))
    if said.labels != "int" and (count := len(said.class_names) or max(_tables(network), default=0)):
        yield Input("y", "float32", (count,))
        yield Input("y", "float32", (count, 1, 1))


def _z_shapes(network: nn.Module, label: Input | None) -> list[tuple[int, ...]]:
    """What the first layers take, without what labels may have added to it."""
    tables = [layer.embedding_dim for layer in network.modules() if isinstance(layer, nn.Embedding)]
    beside = {0} if label is None else {0, label.size, *tables}
    shapes: dict[tuple[int, ...], None] = {}
    tried = 0
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            sizes, square = layer.in_features, False
        elif isinstance(layer, (nn.ConvTranspose2d, nn.Conv2d)):
            sizes, square = layer.in_channels, True
        else:
            continue
        tried += 1
        for other in sorted(beside):
            if sizes > other:
                shapes[(sizes - other, 1, 1) if square else (sizes - other,)] = None
        if tried == _TRIED:
            break
    flat = [shape for shape in shapes if len(shape) == 1]
    return [*flat, *(shape for shape in shapes if len(shape) == 3)]


def _different(images: _Images, fitting: list[tuple[Input, ...]]) -> list[tuple[Input, ...]]:
    """Of forms that only differ in axes of 1 and give the same images, the first."""
    kept: list[tuple[tuple[Input, ...], Floats]] = []
    for inputs in fitting:
        random = np.random.default_rng(0)
        given = [random.standard_normal((2, *i.shape), np.float32) if i.name == "z" else _two_labels(i) for i in inputs]
        made = _runner(images)(*given)
        sizes = [i.size for i in inputs]
        if not any(
            sizes == [i.size for i in other] and made.shape == seen.shape and np.allclose(made, seen, atol=1e-5)
            for other, seen in kept
        ):
            kept.append((inputs, made))
    return [inputs for inputs, _ in kept]


def _two_labels(label: Input) -> NDArray[Any]:
    if label.dtype == "int64":
        return np.zeros((2, *label.shape), np.int64)
    return np.eye(2, label.size, dtype=np.float32).reshape(2, *label.shape)


def _runner(images: _Images) -> Callable[..., Floats]:
    @torch.no_grad()
    def run(*given: NDArray[Any]) -> Floats:
        made = images(*(torch.from_numpy(np.ascontiguousarray(x)) for x in given))
        return np.asarray(made.float().numpy())

    return run


def _graph(images: _Images, inputs: Sequence[Input]) -> onnx.ModelProto:
    batch = torch.export.Dim("N")
    example = {i.name: torch.zeros(2, *i.shape, dtype=getattr(torch, i.dtype)) for i in inputs}
    return traced(images, example, {name: {0: batch} for name in example})
