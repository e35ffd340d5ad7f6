"""Keras generators become generators of the contract: Keras itself is what their images are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from ganrt_training.keras_source import open_keras
from ganrt_training.probing import Said
from ganrt_training.wrap import export_foreign
from tests.training.test_keras_source import dcgan_file, dcgan_images, keras  # noqa: F401 - fixtures

Z = np.random.default_rng(5).standard_normal((256, 8)).astype(np.float32)


def made(path: Path, **feeds: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images: NDArray[Any] = session.run(None, feeds)[0].astype(int)
    return images


def is_near(found: NDArray[Any], floats: NDArray[Any], low: float, high: float) -> bool:
    """Within one grey level of floats in low … high, and not all the same."""
    assert found.std(axis=0).max() > 5
    expected = np.floor(np.clip((floats - low) * (255 / (high - low)) + 0.5, 0, 255))
    return bool(np.abs(found - expected).max() <= 1)


def test_a_dcgan_of_tensorflow_2(dcgan_file: Path, tmp_path: Path) -> None:  # noqa: F811
    told: list[str] = []
    source = open_keras(dcgan_file)
    card = export_foreign(source, tmp_path / "out.onnx", tell=told.append)
    assert card.exporter["keras"] and card.parity["uint8_max"] <= 1
    assert told[0].startswith("range: [-1, 1], guessed: its last operator is Tanh, and values of 256 samples run from")
    z = np.random.default_rng(6).standard_normal((256, card.z_dim)).astype(np.float32)
    assert is_near(made(tmp_path / "out.onnx", z=z), dcgan_images(z), -1, 1)


def generator(keras: Any, label: str, channels: int, activation: str, high: float) -> Any:  # noqa: F811
    """z [N, 8], and labels, → images [N, 6, 6, channels]."""
    layers = keras.layers
    z = layers.Input((8,), name="noise")
    inputs, x = [z], z
    if label == "numbers":
        y = layers.Input((1,), name="label")  # float32, as Keras has it unless told otherwise
        inputs, x = [y, z], layers.Concatenate()([z, layers.Flatten()(layers.Embedding(3, 4)(y))])
    elif label == "onehot":
        y = layers.Input((3,), name="label")
        inputs, x = [z, y], layers.Concatenate()([z, y])
    x = layers.LeakyReLU(0.2)(layers.Dense(3 * 3 * 4, kernel_initializer="random_normal")(x))
    x = layers.UpSampling2D()(layers.Reshape((3, 3, 4))(x))
    x = layers.Conv2D(channels, 3, padding="same", activation=activation)(x)
    return keras.Model(inputs, x if high <= 1 else layers.Rescaling(high)(x))


@pytest.mark.parametrize(
    ("label", "channels", "span", "file"),
    [
        ("none", 1, (0, 1), "g.keras"),
        pytest.param("none", 3, (-1, 1), "g.h5", marks=pytest.mark.slow),
        pytest.param("numbers", 3, (0, 255), "g.keras", marks=pytest.mark.slow),
        ("numbers", 1, (-1, 1), "g.h5"),
        ("onehot", 1, (0, 255), "g.h5"),
        pytest.param("onehot", 3, (0, 1), "g.keras", marks=pytest.mark.slow),
    ],
)
def test_labels_ranges_and_channels(
    keras: Any,  # noqa: F811
    tmp_path: Path,
    label: str,
    channels: int,
    span: tuple[float, float],
    file: str,
) -> None:
    (low, high), random = span, np.random.default_rng(1)
    model = generator(keras, label, channels, "tanh" if low < 0 else "sigmoid", high)
    model.set_weights([random.normal(0, 0.7, w.shape).astype(np.float32) for w in model.get_weights()])
    model.save(tmp_path / file)
    said = Said(class_names=["a", "b", "c"]) if label == "onehot" else None
    told: list[str] = []
    card = export_foreign(open_keras(tmp_path / file), tmp_path / "out.onnx", said, tell=told.append)
    assert (card.z_dim, card.width, card.channels) == (8, 6, channels)
    assert card.class_names == {"none": (), "numbers": ("0", "1", "2"), "onehot": ("a", "b", "c")}[label]
    assert any(f"range: [{low}, {high}], guessed" in sentence for sentence in told)
    y = np.arange(256) % 3
    labels = {"none": None, "numbers": y[:, None].astype(np.float32), "onehot": np.eye(3, dtype=np.float32)[y]}[label]
    given = {"noise": Z} if labels is None else {"noise": Z, "label": labels}
    by_keras = model.predict([given[i.name] for i in model.inputs], verbose=0)
    feeds = {"z": Z} if labels is None else {"z": Z, "y": y}
    assert is_near(made(tmp_path / "out.onnx", **feeds), by_keras, low, high)
