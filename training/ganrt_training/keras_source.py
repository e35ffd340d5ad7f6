"""A generator of Keras, from its file: with Keras's PyTorch backend it is a module, and so has a graph."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ganrt.errors import MissingExtra, TrainingError
from ganrt.graphs import ALLOWED_OPS
from ganrt_training.assemble import OPSET
from ganrt_training.foreign import Floats, Foreign, Input
from ganrt_training.keras_files import INSTALL, MAX_BYTES, KerasFile, in_order, read_keras
from ganrt_training.readers.source import check_file

_DTYPES = ("float32", "int32", "int64")
_TAKEN_OPS = ALLOWED_OPS | {"BatchNormalization", "Dropout"}  # the last two are folded away
_MAX_NUMBERS = 1 << 28  # that a layer may make for an image
_SPARE = 1 << 16  # bytes
_RENAMED = {"depthwise_kernel": "kernel"}  # names of weights, Keras 2 → 3
_WAY_OUT = "Export it to ONNX in the code that made it, and run ganrt export on that."


def open_keras(path: Path) -> Foreign:
    """Opens a generator that ``model.save`` of Keras 2 or 3 wrote, as ``.h5``, ``.hdf5`` or ``.keras``.

    The model takes one or several inputs of float32, int32 or int64, of fixed sizes but for the batch, and makes one
    output: images [N, H, W, C] or [N, C, H, W]. The batch is dynamic, also where the file has a fixed one. What
    mixed precision computed in halves is computed in float32.

    Nothing in the file runs code or opens another file: layers of Keras alone are read, and no Lambda or custom object.
    Needs Keras with its PyTorch backend: if nothing has imported it yet, it is imported with KERAS_BACKEND=torch,
    whatever the environment says; the environment is as before afterwards, but Keras keeps that backend.

    Raises TrainingError when the file is no such model, when it is damaged or refused, and when Keras has been imported
    with another backend; MissingExtra when Keras or h5py is not installed.
    """
    where, data = str(path), _read(path)
    file = read_keras(data, where)
    keras = _keras()
    model = _loaded(keras, file, where)
    inputs = _inputs(model, where)
    _check_output(keras, model, where)
    module = _Called(keras, model).eval()

    def run(*arrays: Any) -> Floats:
        given = [np.ascontiguousarray(array, input.dtype) for array, input in zip(arrays, inputs, strict=True)]
        with torch.no_grad():
            made: Tensor = module(*(torch.from_numpy(array) for array in given))
        return made.numpy()

    return Foreign(
        where=where,
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
        inputs=inputs,
        run=run,
        graph=lambda: _graph(module, inputs, where),
        made_with=(("keras", keras.__version__), ("torch", torch.__version__)),
    )


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise TrainingError(
            f"{path}: is a folder, as TensorFlow's SavedModel is",
            'Load it in TensorFlow and save it as one file: model.save("generator.h5").',
        )
    check_file(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise TrainingError(f"{path}: has {size:,} bytes; at most {MAX_BYTES:,} are read", _WAY_OUT)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read: {error}", "Name a .h5 or .keras file.") from error


def _keras() -> Any:
    """Keras, with PyTorch as its backend."""
    found = sys.modules.get("keras")
    if found is None:
        before = os.environ.get("KERAS_BACKEND")
        os.environ["KERAS_BACKEND"] = "torch"
        try:
            with _quiet():
                import keras
        except ImportError as error:
            raise MissingExtra("reading files of Keras needs Keras, which is not installed", INSTALL) from error
        finally:
            if before is None:
                del os.environ["KERAS_BACKEND"]
            else:
                os.environ["KERAS_BACKEND"] = before
        found = keras
    if int(found.__version__.split(".")[0]) < 3:
        raise MissingExtra(f"reading files of Keras needs Keras 3; {found.__version__} is installed", INSTALL)
    backend = found.backend.backend()
    if backend != "torch":
        raise TrainingError(
            f"Keras has been imported with the backend {backend!r}; a graph is made with 'torch'",
            "Run ganrt export as a command, or set KERAS_BACKEND=torch before keras is imported.",
        )
    return found


def _loaded(keras: Any, file: KerasFile, where: str) -> Any:
    """The model, with its weights, on the CPU."""
    hint = f"Save the model again with a newer Keras, or: {_WAY_OUT[0].lower()}{_WAY_OUT[1:]}"
    # By the ending Keras tells its two orders of weights apart: by path, and layer by layer.
    ending = ".weights.h5" if file.names is None else ".h5"
    try:
        with _quiet(), keras.device("cpu"), tempfile.TemporaryDirectory() as folder:
            with keras.device("meta"):  # shapes only: whatever the description asks for, nothing is allocated
                shapes = keras.saving.deserialize_keras_object(copy.deepcopy(file.config), safe_mode=True)
            _check_sizes(shapes, file, where)
            model = keras.saving.deserialize_keras_object(file.config, safe_mode=True)
            if not model.built or not getattr(model, "inputs", None):
                raise TrainingError(
                    f"{where}: does not say the shape of its inputs",
                    "Put a keras.Input in front of its first layer, load the weights and save it again.",
                )
            data = file.weights if file.names is None else in_order(file.weights, _order(model, file.names, where))
            weights = Path(folder) / f"generator{ending}"
            weights.write_bytes(data)
            model.load_weights(str(weights))
    except TrainingError:
        raise
    except Exception as error:  # Keras raises what its layers meet
        reason = str(error).rsplit("Exception encountered: ", 1)[-1].strip()  # before it, the whole description
        raise TrainingError(f"{where}: Keras {keras.__version__} does not load it: {reason:.300}", hint) from error
    return model


def _check_sizes(model: Any, file: KerasFile, where: str) -> None:
    """Raises TrainingError for a description of more weights than the file holds, or of vast images on the way."""
    if model.built and 4 * (count := model.count_params()) > 2 * len(file.weights) + _SPARE:  # halves are stored in 2
        raise TrainingError(
            f"{where}: describes {count:,} weights, and holds fewer", "Download it again, or save the model again."
        )
    for layer in model._flatten_layers():
        for node in layer._inbound_nodes:
            for tensor in node.output_tensors:
                if math.prod(size or 1 for size in tensor.shape[1:]) > _MAX_NUMBERS:
                    raise TrainingError(
                        f"{where}: its layer {layer.name!r:.60} makes {list(tensor.shape[1:])} numbers for an image",
                        f"Up to {_MAX_NUMBERS:,} are taken.",
                    )


def _order(model: Any, names: dict[str, tuple[str, ...]], where: str) -> list[str]:
    """The layers with weights, in the order in which Keras asks for them.

    It takes them by their place, and so would take one layer's for another's, or beta for gamma, where shapes are
    equal; their names tell.
    """
    saved = {layer: [_tail(name) for name in listed] for layer, listed in names.items() if listed}
    layers = {layer.name: [*layer.trainable_weights, *layer.non_trainable_weights] for layer in model.layers}
    wanted = {layer: [_tail(weight.name) for weight in weights] for layer, weights in layers.items() if weights}
    if set(saved) != set(wanted):
        raise TrainingError(
            f"{where}: has weights of {', '.join(saved) or 'no layer'}, and its description layers with weights "
            f"called {', '.join(wanted) or 'nothing'}",
            "Save the model again with model.save.",
        )
    for layer, expected in wanted.items():
        if saved[layer] != expected:
            raise TrainingError(
                f"{where}: the weights of its layer {layer!r} are {', '.join(saved[layer])}; "
                f"expected, in this order, {', '.join(expected)}",
                'Set trainable = True on the model and save it again, best as one file: model.save("generator.keras").',
            )
    return list(wanted)


def _tail(name: str) -> str:
    last = name.rsplit("/", 1)[-1].split(":", 1)[0]
    return _RENAMED.get(last, last)


def _inputs(model: Any, where: str) -> tuple[Input, ...]:
    found: list[Input] = []
    for number, tensor in enumerate(model.inputs):
        name, shape = tensor.name or f"input_{number}", tensor.shape[1:]
        if tensor.dtype not in _DTYPES or any(size is None for size in shape):
            sizes = ", ".join(["N", *("?" if size is None else str(size) for size in shape)])
            raise TrainingError(
                f"{where}: takes {name} {tensor.dtype} [{sizes}]",
                "Expected float32, int32 or int64, and fixed sizes but for the batch.",
            )
        if name in [input.name for input in found]:
            raise TrainingError(f"{where}: has two inputs called {name}", "Name them apart and save it again.")
        found.append(Input(name, str(tensor.dtype), tuple(int(size) for size in shape)))
    return tuple(found)


def _check_output(keras: Any, model: Any, where: str) -> None:
    shapes = [tuple(tensor.shape) for tensor in model.outputs]
    if len(shapes) == 1 and len(shapes[0]) == 4 and model.outputs[0].dtype == "float32":
        return
    shown = " and ".join(
        f"[{', '.join(['N', *('?' if size is None else str(size) for size in s[1:])])}]" for s in shapes
    )
    hint = "Expected one output, images as float32: [N, H, W, C] or [N, C, H, W]. Save the generator alone."
    for layer in model.layers:  # a GAN in one piece, as it is trained
        if isinstance(layer, keras.Model) and [len(tensor.shape) for tensor in layer.outputs] == [4]:
            hint = (
                f"Its layer {layer.name!r} makes images. Save that alone: "
                f'model.get_layer({layer.name!r}).save("generator.keras").'
            )
    raise TrainingError(f"{where}: makes {shown}, no images", hint)


class _Called(nn.Module):
    """A model of Keras as a function of its inputs in a row, as it works after training."""

    def __init__(self, keras: Any, model: Any) -> None:
        super().__init__()
        self.model, self._keras = model, keras
        self._form = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    def forward(self, *inputs: Tensor) -> Tensor:
        with self._keras.device("cpu"):
            made = self.model(self._keras.tree.pack_sequence_as(self._form, list(inputs)), training=False)
        output: Tensor = self._keras.tree.flatten(made)[0]
        return output


def _graph(module: _Called, inputs: tuple[Input, ...], where: str) -> onnx.ModelProto:
    example = tuple(torch.zeros(2, *input.shape, dtype=getattr(torch, input.dtype)) for input in inputs)
    rows = torch.export.Dim("N")
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[input.name for input in inputs],
                output_names=["raw_images"],
                dynamic_shapes=(tuple({0: rows} for _ in inputs),),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever the tracer meets
        raise TrainingError(f"{where}: cannot be exported to ONNX: {error!s:.600}", _WAY_OUT) from error
    assert program is not None
    model = onnx.load_model_from_string(program.model_proto.SerializeToString())
    refused = sorted({node.op_type for node in model.graph.node if node.domain or node.op_type not in _TAKEN_OPS})
    if refused or model.functions:
        raise TrainingError(
            f"{where}: its graph has {', '.join(refused) or 'functions'}, which no generator may have",
            "Replace the layer it comes from, load the weights and save it again.",
        )
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Keras and the exporter from telling about themselves."""
    loggers = [logging.getLogger(name) for name in ("absl", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
