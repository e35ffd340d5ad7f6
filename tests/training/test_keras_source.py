from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from ganrt.errors import MissingExtra, TrainingError
from ganrt.graphs import ALLOWED_OPS
from ganrt_training.foreign import Foreign
from ganrt_training.keras_source import open_keras

Floats = NDArray[np.float32]
Config = dict[str, Any]
Named = Sequence[tuple[str, Floats]]


@pytest.fixture(scope="module")
def keras() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        import keras
    return keras


# What layers of TensorFlow compute, in numpy ------------------------------------------------------------------------


def conv_transpose(x: Floats, kernel: Floats, bias: Floats | float, stride: int, padding: str) -> Floats:
    """x [N, H, W, C], kernel [k, k, out, C] as Keras has it; the gradient of a convolution with that padding."""
    n, height, width, _ = x.shape
    k = kernel.shape[0]
    full = np.zeros((n, (height - 1) * stride + k, (width - 1) * stride + k, kernel.shape[2]))
    for i in range(height):
        for j in range(width):
            patch = np.einsum("nc,abdc->nabd", x[:, i, j], kernel)
            full[:, i * stride : i * stride + k, j * stride : j * stride + k] += patch
    if padding == "same":
        cut = max(k - stride, 0) // 2
        full = np.pad(full, ((0, 0), (0, stride), (0, stride), (0, 0)))  # where the kernel is smaller than the stride
        full = full[:, cut : cut + height * stride, cut : cut + width * stride]
    elif k < stride:
        full = np.pad(full, ((0, 0), (0, stride - k), (0, stride - k), (0, 0)))
    return (full + bias).astype(np.float32)


def batch_norm(x: Floats, weights: Named) -> Floats:
    gamma, beta, mean, variance = (array for _, array in weights)
    return np.asarray((x - mean) / np.sqrt(variance + np.float32(1e-3)) * gamma + beta)


def leaky(x: Floats, alpha: float) -> Floats:
    return np.where(x < 0, x * np.float32(alpha), x)


# Files as TensorFlow's Keras 2 wrote them ---------------------------------------------------------------------------


def layer(class_name: str, name: str, **config: Any) -> Config:
    return {"class_name": class_name, "config": {"name": name, "trainable": True, "dtype": "float32"} | config}


def placeholder(name: str, *shape: int, dtype: str = "float32") -> Config:
    config = {"batch_input_shape": [None, *shape], "dtype": dtype, "sparse": False, "ragged": False, "name": name}
    return {"class_name": "InputLayer", "config": config}


def transposed(name: str, filters: int, size: int, stride: int, padding: str = "same", **config: Any) -> Config:
    return layer(
        "Conv2DTranspose",
        name,
        filters=filters,
        kernel_size=[size, size],
        strides=[stride, stride],
        padding=padding,
        data_format="channels_last",
        dilation_rate=[1, 1],
        groups=1,
        output_padding=None,
        **{"use_bias": False, "activation": "linear"} | config,
        kernel_initializer={"class_name": "GlorotUniform", "config": {"seed": None}},
    )


def norm(name: str, axis: int) -> Config:
    zeros = {"class_name": "Zeros", "config": {}}
    return layer("BatchNormalization", name, axis=[axis], momentum=0.99, epsilon=0.001, beta_initializer=zeros)


def write_h5(path: Path, model: Config, weights: Mapping[str, Named], version: str = "2.15.0") -> Path:
    """The layout of HDF5 in which TensorFlow's Keras 2 saved a whole model."""
    with h5py.File(path, "w") as file:
        for group in (file, file.create_group("model_weights")):
            group.attrs["backend"], group.attrs["keras_version"] = b"tensorflow", version.encode()
        file.attrs["model_config"] = json.dumps(model)
        file.attrs["training_config"] = json.dumps({"loss": "my_wasserstein", "optimizer_config": {}})
        file.create_group("optimizer_weights")
        group = file["model_weights"]
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            of_layer = group.create_group(name)
            of_layer.attrs["weight_names"] = [f"{inner}:0".encode() for inner, _ in arrays]
            for inner, array in arrays:
                of_layer.create_dataset(f"{inner}:0", data=array)
    return path


def sequential(*layers: Config) -> Config:
    return {"class_name": "Sequential", "config": {"name": "generator", "layers": list(layers)}}


def random(name: str, *shape: int) -> Floats:
    array = np.random.default_rng(sum(name.encode())).standard_normal(shape).astype(np.float32) / 2
    return (np.abs(array) + 1 if name.endswith("variance") else array).astype(np.float32)


def norm_weights(name: str, size: int) -> Named:
    return [(f"{name}/{kind}", random(f"{name}/{kind}", size)) for kind in ("gamma", "beta")] + [
        (f"{name}/{kind}", random(f"{name}/{kind}", size)) for kind in ("moving_mean", "moving_variance")
    ]


def dcgan() -> Config:
    return sequential(
        placeholder("dense_input", 8),
        layer("Dense", "dense", units=24, use_bias=False, activation="linear", batch_input_shape=[None, 8]),
        norm("norm", 1),
        layer("LeakyReLU", "leaky", alpha=0.30000001192092896),
        layer("Reshape", "reshape", target_shape=[2, 2, 6]),
        transposed("up_1", 5, 5, 2),
        norm("norm_1", 3),
        layer("LeakyReLU", "leaky_1", alpha=0.2),
        layer("Dropout", "dropout", rate=0.5, noise_shape=None, seed=None),
        layer("GaussianNoise", "noise", stddev=3.0),
        transposed("up_2", 3, 4, 2, use_bias=True, activation="tanh"),
    )


DCGAN_WEIGHTS: dict[str, Named] = {
    "dense": [("dense/kernel", random("dense", 8, 24))],
    "norm": norm_weights("norm", 24),
    "leaky": [],
    "up_1": [("up_1/kernel", random("up_1", 5, 5, 5, 6))],
    "norm_1": norm_weights("norm_1", 5),
    "up_2": [("up_2/kernel", random("up_2", 4, 4, 3, 5)), ("up_2/bias", random("bias", 3))],
}


def dcgan_images(z: Floats) -> Floats:
    weights = DCGAN_WEIGHTS
    x = leaky(batch_norm(z @ weights["dense"][0][1], weights["norm"]), 0.3).reshape(-1, 2, 2, 6)
    x = leaky(batch_norm(conv_transpose(x, weights["up_1"][0][1], 0, 2, "same"), weights["norm_1"]), 0.2)
    return np.tanh(conv_transpose(x, weights["up_2"][0][1], weights["up_2"][1][1], 2, "same"))


@pytest.fixture
def dcgan_file(tmp_path: Path) -> Path:
    return write_h5(tmp_path / "generator.h5", dcgan(), DCGAN_WEIGHTS)


def feeds(source: Foreign, count: int, labels: int = 3) -> list[NDArray[Any]]:
    generator = np.random.default_rng(count)
    return [
        (generator.standard_normal((count, *i.shape)) if n == 0 else np.arange(count * 1).reshape(count, 1) % labels)
        .reshape(count, *i.shape)
        .astype(i.dtype)
        for n, i in enumerate(source.inputs)
    ]


def assert_graph_equals_run(source: Foreign) -> None:
    graph = source.graph()
    assert {node.op_type for node in graph.graph.node} <= ALLOWED_OPS | {"BatchNormalization", "Dropout"}
    assert [value.name for value in graph.graph.input] == [value.name for value in source.inputs]
    assert (graph.opset_import[0].version, len(graph.graph.output)) == (18, 1)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 2, 3, 64):
        given = feeds(source, count)
        named = {value.name: array for value, array in zip(source.inputs, given, strict=True)}
        made = session.run(None, named)[0]
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, source.run(*given), atol=2e-5)


# What is read -------------------------------------------------------------------------------------------------------


def test_dcgan_of_tensorflow_2_computes_what_its_layers_say(dcgan_file: Path) -> None:
    source = open_keras(dcgan_file)
    assert [str(value) for value in source.inputs] == ["dense_input float32 [N, 8]"]
    assert source.digest == f"sha256:{hashlib.sha256(dcgan_file.read_bytes()).hexdigest()}"
    assert (source.where, source.batch, source.made_with[0][0]) == (str(dcgan_file), None, "keras")
    z = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    images = source.run(z)
    assert (images.shape, images.dtype.name) == ((5, 8, 8, 3), "float32")
    np.testing.assert_allclose(images, dcgan_images(z), atol=1e-5)
    assert_graph_equals_run(source)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_transposed_convolutions_have_the_edges_of_tensorflow(
    tmp_path: Path, size: int, stride: int, padding: str
) -> None:
    model = sequential(placeholder("z", 3, 4, 2), transposed("up", 3, size, stride, padding))
    kernel = random("up", size, size, 3, 2)
    source = open_keras(write_h5(tmp_path / "up.h5", model, {"up": [("up/kernel", kernel)]}))
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(source.run(x), conv_transpose(x, kernel, 0, stride, padding), atol=1e-5)


def test_a_sequential_that_says_its_shape_in_its_first_layer(tmp_path: Path) -> None:
    model = dcgan()
    del model["config"]["layers"][0]
    model["config"]["layers"][0]["config"]["batch_input_shape"] = [16, 8]  # a fixed batch is opened
    source = open_keras(write_h5(tmp_path / "g.hdf5", model, DCGAN_WEIGHTS))
    assert [str(value) for value in source.inputs] == ["dense_input float32 [N, 8]"]
    z = np.ones((3, 8), np.float32)
    np.testing.assert_allclose(source.run(z), dcgan_images(z), atol=1e-5)


def node(config: Config, *inbound: str) -> Config:
    """A layer of a functional model as Keras 2 describes it."""
    return config | {
        "name": config["config"]["name"],
        "inbound_nodes": [[[n, 0, 0, {}] for n in inbound]] if inbound else [],
    }


def test_labels_and_a_nested_model_of_tensorflow_2(tmp_path: Path) -> None:
    inner = sequential(
        placeholder("inner_input", 4, 4, 3),
        transposed("up", 2, 4, 2),
        norm("norm", 3),
        layer("ReLU", "relu", max_value=None),
    )
    inner["config"]["name"] = "inner"
    model = {
        "class_name": "Functional",
        "config": {
            "name": "generator",
            "trainable": True,
            "layers": [
                node(placeholder("label", 1)),
                node(placeholder("latent", 6)),
                node(layer("Embedding", "embedding", input_dim=3, output_dim=16, input_length=1), "label"),
                node(layer("Dense", "dense", units=32, use_bias=True, activation="relu"), "latent"),
                node(layer("Reshape", "as_map", target_shape=[4, 4, 1]), "embedding"),
                node(
                    layer("Reshape", "as_maps", target_shape={"class_name": "__tuple__", "items": [4, 4, 2]}), "dense"
                ),
                node(layer("Concatenate", "both", axis=-1), "as_maps", "as_map"),
                node(inner, "both"),
            ],
            "input_layers": [["latent", 0, 0], ["label", 0, 0]],
            "output_layers": [["inner", 1, 0]],
        },
    }
    table, kernel, bias, up = random("e", 3, 16), random("k", 6, 32), random("b", 32), random("up", 4, 4, 2, 3)
    of_norm = norm_weights("norm", 2)
    weights: dict[str, Named] = {
        "label": [],
        "embedding": [("embedding/embeddings", table)],
        "dense": [("dense/kernel", kernel), ("dense/bias", bias)],
        "inner": [("up/kernel", up), *of_norm],
    }
    source = open_keras(write_h5(tmp_path / "g.h5", model, weights))
    assert [str(value) for value in source.inputs] == ["latent float32 [N, 6]", "label float32 [N, 1]"]
    z, y = random("z", 5, 6), np.array([[0], [1], [2], [1], [0]], np.float32)
    maps = np.maximum(z @ kernel + bias, 0).reshape(5, 4, 4, 2)
    both = np.concatenate([maps, table[y[:, 0].astype(int)].reshape(5, 4, 4, 1)], -1)
    expected = np.maximum(batch_norm(conv_transpose(both, up, 0, 2, "same"), of_norm), 0)
    np.testing.assert_allclose(source.run(z, y), expected, atol=1e-5)
    assert_graph_equals_run(source)


def with_random_weights(model: Any) -> Any:
    generator = np.random.default_rng(7)
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(generator.uniform(0.3, 1, weight.shape) * generator.choice([-0.4, 0.4], weight.shape))
            if "variance" in weight.name:
                weight.assign(np.linspace(0.5, 2, weight.shape[0]))
    return model


def zoo(keras: Any) -> Any:
    """z [N, 6], y int32 [N] → [N, 12, 12, 3], by way of most layers that are read."""
    layers = keras.layers
    z, y = keras.Input((6,), name="z"), keras.Input((), name="y", dtype="int32")
    x = z * layers.Embedding(3, 6)(y) + 1.0
    x = layers.Dense(32, activation=layers.LeakyReLU(0.1), kernel_regularizer="l2", kernel_constraint="max_norm")(x)
    x = layers.LayerNormalization(axis=[1])(x)
    x = layers.Reshape((4, 4, 2))(layers.Flatten()(layers.Activation("elu")(x)))
    x = layers.ZeroPadding2D(1)(layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(4, 3, padding="same")(x)))
    x = layers.GroupNormalization(2)(layers.UpSampling2D(2, interpolation="bilinear")(x))
    x = layers.ELU()(layers.BatchNormalization()(x))
    x = layers.Add()([x, layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid")(x)])])
    inner = keras.Sequential([keras.Input((12, 12, 4)), layers.SeparableConv2D(4, 3, padding="same"), layers.ReLU()])
    inner.add(layers.BatchNormalization())
    x = layers.LayerNormalization(axis=[1, 2, 3])(inner(layers.GaussianNoise(1.0)(x)))
    x = layers.Cropping2D(2)(layers.UpSampling2D()(layers.AveragePooling2D(2)(layers.ZeroPadding2D(2)(x))))
    x = keras.ops.tanh(layers.Conv2D(3, 3, padding="same", activation="swish", dtype="mixed_float16")(x))
    return with_random_weights(keras.Model({"z": z, "y": y}, layers.Activation("linear", dtype="float32")(x)))


@pytest.mark.parametrize("name", ["generator.keras", "generator.h5"])
def test_keras_3(keras: Any, tmp_path: Path, name: str) -> None:
    model = zoo(keras)
    model.save(tmp_path / name)
    source = open_keras(tmp_path / name)
    assert {str(value) for value in source.inputs} == {"z float32 [N, 6]", "y int32 [N]"}
    given = {"z": random("z", 4, 6), "y": np.array([0, 1, 2, 0], np.int32)}
    images = source.run(*(given[value.name] for value in source.inputs))
    assert images.shape == (4, 12, 12, 3)
    np.testing.assert_allclose(
        images, model(given, training=False).detach().numpy(), atol=2e-3
    )  # it computes in halves
    if name.endswith(".keras"):
        assert_graph_equals_run(source)


def test_what_is_left_to_the_reader_of_labels(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    z, y = keras.Input((4,), name="z"), keras.Input((1,), name="y", dtype="int64")
    x = layers.Concatenate()([z, layers.Flatten()(layers.Embedding(3, 5)(y))])
    x = layers.Permute((3, 1, 2))(layers.Reshape((8, 8, 1))(layers.Dense(64, activation="sigmoid")(x)))
    with_random_weights(keras.Model([z, y], x)).save(tmp_path / "g.keras")
    source = open_keras(tmp_path / "g.keras")
    assert [str(value) for value in source.inputs] == ["z float32 [N, 4]", "y int64 [N, 1]"]
    assert source.run(*feeds(source, 2)).shape == (2, 1, 8, 8)
    assert_graph_equals_run(source)


# What is refused ----------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(TrainingError) as caught:
        open_keras(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.hint
    return str(caught.value)


Change = Callable[[list[Config]], Any]


def lambda_of_keras_2(layers: list[Config]) -> None:
    layers[3] = layer("Lambda", "noise", function=["4wEAAAAA", None, None], function_type="lambda")


def placed(config: Config) -> Change:
    """Puts a layer in the place of the DCGAN's LeakyReLU."""
    return lambda layers: layers.__setitem__(3, config)


def changed(number: int, **config: Any) -> Change:
    return lambda layers: layers[number]["config"].update(config)


FUNCTION = {"class_name": "function", "registered_name": "function"}
DESCRIPTIONS: dict[str, tuple[Change, str]] = {
    "CVE-2024-3660": (lambda_of_keras_2, r"layer 'noise' is a Lambda: it holds Python code.*\nRebuild it from layers"),
    "CVE-2025-1550": (
        placed(layer("system", "x", command="touch /tmp/x") | {"module": "os"}),
        r"layer 'x' names 'os'\.system; only layers of Keras are used",
    ),
    "builtins": (placed(layer("exec", "x") | {"module": "builtins"}), r"names 'builtins'\.exec"),
    "CVE-2025-8747": (
        placed(layer("get_file", "x", origin="http://localhost/") | {"module": "keras.utils"}),
        r"is a 'get_file', which is not among the layers that are read",
    ),
    "CVE-2025-9906": (
        changed(5, activation=FUNCTION | {"module": "keras.config", "config": "enable_unsafe_deserialization"}),
        r"layer 'up_1' has the activation 'enable_unsafe_deserialization' of 'keras\.config'",
    ),
    "CVE-2025-12058": (placed(layer("StringLookup", "x", vocabulary="/etc/passwd")), r"is a 'StringLookup'"),
    "a module of pickles": (placed(layer("TorchModuleWrapper", "x", module="gA==")), r"is a 'TorchModuleWrapper'"),
    "a custom layer": (
        placed(layer("Mine>PixelNorm", "x")),
        r"is a 'Mine>PixelNorm'.*\nRebuild it from layers of Keras",
    ),
    "a custom layer under a known name": (
        placed(layer("ReLU", "x") | {"module": "keras.layers", "registered_name": "Mine>ReLU"}),
        r"is a 'Mine>ReLU', which is no layer of Keras",
    ),
    "an operation of TensorFlow": (placed(layer("TFOpLambda", "tf.math.multiply")), r"is a 'TFOpLambda'"),
    "a custom activation": (changed(5, activation="my_swish"), r"the activation 'my_swish', which is none of Keras's"),
    "an activation that changed": (changed(5, activation="hard_sigmoid"), r"Keras 2 and Keras 3 mean different"),
    "an object in a value": (
        changed(4, target_shape={"class_name": "__lambda__", "config": {"code": "4w=="}}),
        r"layer 'reshape' holds a '__lambda__'",
    ),
    "halves": (changed(5, dtype="float16"), r"layer 'up_1' computes with 'float16'\nExpected float32"),
    "interpolation": (placed(layer("UpSampling2D", "x", interpolation="bicubic")), r"interpolates by 'bicubic'"),
    "several axes": (changed(2, axis=[1, 2]), r"normalises over the axes \[1, 2\]"),
    "nesting": (
        placed(json.loads('{"class_name":"Sequential","config":{"layers":[' * 90 + "1" + "]}}" * 90)),
        r"its description is nested too deeply",
    ),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_what_a_description_may_not_name(tmp_path: Path, name: str) -> None:
    change, message = DESCRIPTIONS[name]
    model = copy.deepcopy(dcgan())
    change(model["config"]["layers"])
    with pytest.raises(TrainingError, match=message):
        open_keras(write_h5(tmp_path / "g.h5", model, DCGAN_WEIGHTS))


def test_a_layer_in_training_mode_is_refused(tmp_path: Path) -> None:
    layers = [node(placeholder("z", 8, 8, 3)), node(norm("norm", 3), "z")]
    layers[1]["inbound_nodes"][0][0][3]["training"] = True
    ends = {"input_layers": [["z", 0, 0]], "output_layers": [["norm", 0, 0]]}
    model = {"class_name": "Functional", "config": {"name": "g", "layers": layers} | ends}
    path = write_h5(tmp_path / "g.h5", model, {"norm": norm_weights("norm", 3)})
    assert "layer 'norm' is always in training mode" in refusal(path)


def kernel_elsewhere(file: Any, folder: Path) -> None:
    (folder / "secret").write_bytes(b"secret" * 4000)
    file.create_dataset("dense/kernel:0", (8, 24), "f4", external=[(str(folder / "secret"), 0, 8 * 24 * 4)])


def virtual_kernel(file: Any, folder: Path) -> None:
    layout = h5py.VirtualLayout((8, 24), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (8, 24))
    file.create_virtual_dataset("dense/kernel:0", layout)


def linked_kernel(file: Any, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = DCGAN_WEIGHTS["dense"][0][1]
    file["dense/kernel:0"] = h5py.ExternalLink(str(folder / "other.h5"), "x")


def soft_kernel(file: Any, folder: Path) -> None:
    file["dense/kernel:0"] = h5py.SoftLink("/model_weights/up_1/up_1/kernel:0")


def vast_kernel(file: Any, folder: Path) -> None:
    file.create_dataset("dense/kernel:0", (1 << 20, 1 << 20), "f4", chunks=(64, 64))


def objects_for_a_kernel(file: Any, folder: Path) -> None:
    file.create_dataset("dense/kernel:0", (8, 24), h5py.string_dtype())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (linked_kernel, "model_weights/dense/dense/kernel:0 is a link to another file, '"),
        (soft_kernel, "model_weights/dense/dense/kernel:0 is a link by name"),
        (kernel_elsewhere, "model_weights/dense/dense/kernel:0 keeps its numbers in another file"),
        (virtual_kernel, "model_weights/dense/dense/kernel:0 keeps its numbers in another file"),
        (vast_kernel, "the weights have more than 2,147,483,647 bytes"),
        (objects_for_a_kernel, "model_weights/dense/dense/kernel:0 holds object, not numbers"),
        (lambda file, folder: None, "is damaged"),
    ],
)
def test_hdf5_that_points_elsewhere_or_lacks_a_weight(
    tmp_path: Path, dcgan_file: Path, place: Callable[[Any, Path], None], message: str
) -> None:
    with h5py.File(dcgan_file, "r+") as file:
        del file["model_weights/dense/dense/kernel:0"]
        place(file["model_weights/dense"], tmp_path)
    if message == "is damaged":
        message = "does not load it"
    assert message in refusal(dcgan_file)


def test_weights_in_another_order_are_told_by_their_names(tmp_path: Path) -> None:
    weights = dict(DCGAN_WEIGHTS)
    gamma, beta, *rest = weights["norm_1"]
    path = write_h5(tmp_path / "g.h5", dcgan(), weights | {"norm_1": [beta, gamma, *rest]})
    assert "the weights of its layer 'norm_1' are beta, gamma, " in refusal(path)
    path = write_h5(tmp_path / "g.h5", dcgan(), {name: weights[name] for name in ("dense", "up_1", "up_2")})
    assert "has weights of dense, up_1, up_2, and its description layers with weights called dense, norm" in refusal(
        path
    )


def test_files_that_are_something_else(tmp_path: Path, dcgan_file: Path) -> None:
    data = dcgan_file.read_bytes()
    dcgan_file.write_bytes(data[: len(data) // 2])
    assert "is damaged" in refusal(dcgan_file)
    dcgan_file.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    assert "looks like a Python pickle" in refusal(dcgan_file)
    dcgan_file.write_bytes(b"")
    assert "is neither HDF5 nor a zip archive" in refusal(dcgan_file)
    (tmp_path / "saved").mkdir()
    assert "is a folder, as TensorFlow's SavedModel is\nLoad it in TensorFlow" in refusal(tmp_path / "saved")
    assert "cannot be read" in refusal(tmp_path / "none.h5")
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["x"] = [1, 2]
    assert "is no file of Keras: it has no model_config" in refusal(tmp_path / "g.h5")


@pytest.fixture
def small(keras: Any) -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))], name="small")
    return with_random_weights(model)


@pytest.mark.parametrize("name", ["g.weights.h5", "old_weights.h5"])
def test_weights_alone(small: Any, tmp_path: Path, dcgan_file: Path, name: str) -> None:
    path = tmp_path / name
    if name == "g.weights.h5":
        small.save_weights(path)
    else:  # as Keras 2 saved weights: what a whole model has in a group
        with h5py.File(path, "w") as file, h5py.File(dcgan_file) as whole:
            file.attrs["layer_names"] = whole["model_weights"].attrs["layer_names"]
    assert "holds no description of a model (model_config)\nIt holds weights without their model" in refusal(path)


def rezipped(path: Path, changes: Mapping[str, bytes | None]) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | dict(changes)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def test_archives(small: Any, tmp_path: Path) -> None:
    path = tmp_path / "g.keras"
    small.save(path)
    whole = path.read_bytes()
    weights = zipfile.ZipFile(path).read("model.weights.h5")
    cut = io.BytesIO(weights)
    with h5py.File(cut, "r+") as file:
        del file["layers/dense/vars/1"]
    z = random("z", 2, 4)
    for changes, message in (
        ({"../../escaped": b"x"}, "has a member '../../escaped', outside of itself"),
        ({"config.json": b'{"class_name": "Sequ'}, "its description cannot be read as JSON"),
        ({"config.json": b" " * (17 << 20)}, "its config.json has 17,825,792 bytes"),
        ({"config.json": b'{"class_name": "Dense", "config": {}}'}, "describes a layer (Dense), not a model"),
        ({"model.weights.h5": None}, "is no archive of Keras: it has no model.weights.h5"),
        ({"model.weights.h5": weights[:900]}, "is damaged"),
        ({"model.weights.h5": cut.getvalue()}, "does not load it"),
    ):
        path.write_bytes(whole)
        assert message in refusal(rezipped(path, changes))
    assert not (tmp_path.parent.parent / "escaped").exists()
    path.write_bytes(whole)
    rezipped(path, {"assets/vocabulary.txt": b"x"})  # not used, so no harm
    np.testing.assert_allclose(open_keras(path).run(z), small(z, training=False).detach().numpy(), atol=1e-6)


def test_models_that_make_no_images(keras: Any, small: Any, tmp_path: Path) -> None:
    layers, path = keras.layers, tmp_path / "g.keras"
    judge = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(1)], name="judge")
    keras.Sequential([small, judge]).save(path)
    assert "makes [N, 1], no images\nIts layer 'small' makes images. Save that alone" in refusal(path)
    judge.save(path)
    assert "makes [N, 1], no images\nExpected one output" in refusal(path)
    keras.Model(small.inputs, [small.outputs[0], small.outputs[0] * 2]).save(path)
    assert "makes [N, 8, 8, 1] and [N, 8, 8, 1], no images" in refusal(path)
    z = keras.Input((None, None, 3), name="z")
    keras.Model(z, layers.Conv2D(3, 3)(z)).save(path)
    assert "takes z float32 [N, ?, ?, 3]\nExpected float32, int32 or int64, and fixed sizes" in refusal(path)


def test_packages_and_backends(dcgan_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = types.SimpleNamespace(backend=lambda: "jax")
    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace(__version__="3.15.0", backend=backend))
    with pytest.raises(
        TrainingError, match="backend 'jax'; a graph is made with 'torch'\nRun ganrt export as a command"
    ):
        open_keras(dcgan_file)
    for package in ("keras", "h5py"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtra, match=r"Install the extra: pip install 'ganrt\[keras\]'"):
            open_keras(dcgan_file)


def test_keras_is_imported_late_quietly_and_with_torch(dcgan_file: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom ganrt_training.keras_source import open_keras\n"
        "assert not {'keras', 'h5py'} & set(sys.modules)\nopen_keras(pathlib.Path(sys.argv[1]))\n"
        "assert os.environ['KERAS_BACKEND'] == 'jax'"
    )
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, dcgan_file], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
