"""Files of Keras that point elsewhere, promise what they do not hold, or name what would run code."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.faults.hostile_data import Case, Member, stored, zeros, zip_of

Config = dict[str, Any]


def layer(kind: str, **config: Any) -> Config:
    return {"class_name": kind, "config": {"name": kind.lower(), "trainable": True, "dtype": "float32"} | config}


def model(*layers: Config, **more: Any) -> Config:
    first = layer("InputLayer", batch_input_shape=[None, 4])
    return {"class_name": "Sequential", "config": {"name": "g", "layers": [first, *layers]}} | more


DENSE = layer("Dense", units=16, activation="linear", use_bias=False)
SHAPE = layer("Reshape", target_shape=[4, 4, 1])
GOOD = model(DENSE, SHAPE)


def h5(config: object = GOOD, change: Callable[[Any, Path], object] = lambda file, folder: None) -> Any:
    """A file as Keras 2 wrote it, changed."""

    def make(folder: Path) -> Path:
        with h5py.File(folder / "g.h5", "w") as file:
            file.attrs["keras_version"] = b"2.15.0"
            file.attrs["model_config"] = config if isinstance(config, (str, bytes)) else json.dumps(config)
            group = file.create_group("model_weights")
            group.attrs["layer_names"], group.attrs["keras_version"] = [b"dense"], b"2.15.0"
            group.create_group("dense").attrs["weight_names"] = [b"dense/kernel:0"]
            group["dense"].create_dataset("dense/kernel:0", data=np.ones((4, 16), np.float32))
            change(file, folder)
        return folder / "g.h5"

    return make


def archive(
    config: object = GOOD, change: Callable[[dict[str, bytes]], object] = lambda m: None, **zipped: Member
) -> Any:
    """A ``.keras`` archive, changed."""

    def make(folder: Path) -> Path:
        weights = io.BytesIO()
        with h5py.File(weights, "w") as file:
            file.create_dataset("layers/dense/vars/0", data=np.ones((4, 16), np.float32))
        members = {"config.json": json.dumps(config).encode(), "metadata.json": b'{"keras_version": "3.11.0"}',
                   "model.weights.h5": weights.getvalue()}  # fmt: skip
        change(members)
        made = [zipped.get(name.split(".")[0], stored(name.encode(), data)) for name, data in members.items()]
        (folder / "g.keras").write_bytes(zip_of(*made))
        return folder / "g.keras"

    return make


def kernel(place: Callable[[Any], object]) -> Any:
    def change(file: Any, folder: Path) -> None:
        del file["model_weights/dense/dense/kernel:0"]
        place(file["model_weights/dense"])

    return h5(change=change)


def full_of_zeros(group: Any) -> None:
    """Two gigabytes of zeros, of which none is in the file."""
    group.create_dataset("dense/kernel:0", (500, 1 << 20), "f4")


def packed_zeros(group: Any) -> None:
    made = group.create_dataset("dense/kernel:0", (256, 1 << 20), "f4", chunks=(1, 1 << 20), compression="gzip")
    chunk = zlib.compress(bytes(4 << 20), 9)
    for k in range(256):
        made.id.write_direct_chunk((k, 0), chunk)


def loops(file: Any, folder: Path) -> None:
    group = file["model_weights/dense"]
    for k in range(30):
        group[f"again{k}"] = group


def endless_heap(folder: Path) -> Path:
    """The free space of its heap, where texts are, has no length: HDF5 would look at it for ever."""
    path: Path = h5()(folder)
    data = bytearray(path.read_bytes())
    here = data.index(b"GCOL") + 16
    while index := int.from_bytes(data[here : here + 2], "little"):
        here += 16 + -(-int.from_bytes(data[here + 8 : here + 16], "little") // 8) * 8
        assert index < 100
    data[here + 8 : here + 16] = bytes(8)
    path.write_bytes(data)
    return path


def many_attributes(file: Any, folder: Path) -> None:
    file["model_weights"].attrs["layer_names"] = np.array([b"n" * 9000] * 7)


def deep_groups(file: Any, folder: Path) -> None:
    group = file["model_weights"]
    for _ in range(200):
        group = group.create_group("g")


def linked(link: object) -> Any:
    return lambda file, folder: file["model_weights"].__setitem__("x", link)


def attr(name: str, value: Any, where: str = "/") -> Any:
    return h5(change=lambda file, folder: file[where].attrs.__setitem__(name, value))


def deep(depth: int) -> str:
    return '{"class_name":"Sequential","config":{"layers":[' * depth + "1" + "]}}" * depth


CODE, LINK, BOMB, LIES = (
    "Keras file that names code", "HDF5 that points elsewhere", "Keras file that fills the memory",
    "Keras file that is broken",
)  # fmt: skip
LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wEAAA==", "defaults": None, "closure": None}}
MODULE = {"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": None}


def named(node: Config) -> tuple[Case, Case]:
    return Case(CODE, h5(model(DENSE, node, SHAPE)), "g.h5"), Case(CODE, archive(model(DENSE, node, SHAPE)), "g.keras")


KERAS = (
    *named(layer("Lambda", function=LAMBDA)),
    *named(layer("Dense", units=LAMBDA)),
    *named(layer("Dense", units=16, activation=LAMBDA)),
    *named(layer("Dense", units=16, activation=MODULE)),
    *named(layer("Activation", activation={"class_name": "function", "module": "os", "config": "system"})),
    *named(MODULE),
    *named(layer("Dense", units=16) | {"module": "keras.src.utils.file_utils", "class_name": "get_file"}),
    *named(layer("Dense", units=16) | {"registered_name": "os>system"}),
    Case(CODE, h5(model(DENSE | {"module": "keras.os"}, SHAPE)), None),  # its place is known without it
    *named(layer("TimeDistributed", layer=layer("Lambda", function=LAMBDA))),
    *named(layer("StringLookup", vocabulary="/etc/passwd")),
    *named(layer("TorchModuleWrapper", module="gASVHQ==")),
    *named(layer("TFSMLayer", filepath="/etc")),
    *named(layer("JaxLayer", call_fn=MODULE)),
    Case(CODE, archive(model(DENSE, SHAPE, build_config=MODULE, compile_config=MODULE)), None),
    Case(CODE, attr("training_config", json.dumps({"loss": MODULE})), None),
    Case(LINK, h5(change=linked(h5py.SoftLink("/nowhere"))), "g.h5"),
    Case(LINK, h5(change=linked(h5py.SoftLink("/model_weights/x"))), "g.h5"),
    Case(LINK, h5(change=linked(h5py.ExternalLink("/etc/passwd", "/"))), "link to another file"),
    Case(LINK, h5(change=lambda file, folder: (file.__delitem__("model_weights"), file.__setitem__(
        "model_weights", h5py.ExternalLink("/etc/passwd", "/")))), "link to another file"),
    Case(LINK, kernel(lambda group: group.create_dataset("dense/kernel:0", (4, 16), "f4", external=[
        ("/etc/passwd", 0, 256)])), "another file"),
    Case(LINK, kernel(lambda group: group.create_dataset("dense/kernel:0", data=group.ref, dtype=h5py.ref_dtype)),
         "not numbers"),
    Case(LINK, kernel(lambda group: group.__setitem__("dense/kernel:0", np.dtype("f4"))), "neither a group"),
    Case(BOMB, kernel(full_of_zeros), "g.h5"),
    Case(BOMB, kernel(packed_zeros), "g.h5"),
    Case(BOMB, kernel(lambda group: group.create_dataset("dense/kernel:0", (1 << 62,) * 2, "f4", chunks=(1, 1))), "g"),
    Case(BOMB, kernel(lambda group: group.create_dataset("dense/kernel:0", (4, 16), np.dtype(("f4", (1 << 20,))),
                                                         chunks=(1, 1))), "g.h5"),
    Case(BOMB, h5(change=loops), "g.h5"),
    Case(BOMB, h5(change=deep_groups), "nested too deeply"),
    Case(BOMB, archive(model=Member(b"model.weights.h5", zeros(2000), 8, 2000 << 20)), "g.keras"),

    Case(BOMB, archive(model=Member(b"model.weights.h5", zeros(2000), 8, 1 << 10)), "g.keras"),
    Case(BOMB, archive(metadata=Member(b"metadata.json", zeros(2000), 8, 10 << 20)), "g.keras"),
    Case(BOMB, h5(deep(90)), "nested too deeply"),
    Case(BOMB, h5("[" * 500_000), "g.h5"),
    Case(BOMB, h5(model(*[layer("Dropout", rate=0.0)] * 30_000)), None),
    Case(BOMB, endless_heap, "a heap that does not end"),
    Case(LIES, h5("9" * 9000), "g.h5"),
    Case(LIES, h5(b"\xff\xfe{}"), "g.h5"),
    Case(LIES, h5("null"), "g.h5"),
    Case(LIES, h5({"class_name": "Sequential", "config": [DENSE]}), "g.h5"),
    Case(LIES, h5({"class_name": ["Sequential"], "config": {}}), "g.h5"),
    Case(LIES, h5({"class_name": "Functional", "config": {"layers": [DENSE], "input_layers": 3}}), "g.h5"),
    Case(LIES, attr("model_config", 3), "g.h5"),
    Case(LIES, attr("model_config", np.zeros(5)), "g.h5"),
    Case(LIES, attr("model_config", h5py.Empty("f")), "g.h5"),
    Case(LIES, attr("keras_version", np.ones(3)), "g.h5"),
    Case(LIES, attr("layer_names", 3, "model_weights"), "g.h5"),
    Case(LIES, attr("layer_names", [b"gone"], "model_weights"), "g.h5"),
    Case(LIES, attr("layer_names", [b"../.."], "model_weights"), "g.h5"),
    Case(LIES, attr("layer_names", [b"\xff"], "model_weights"), "g.h5"),
    Case(LIES, attr("weight_names", h5py.Empty("S1"), "model_weights/dense"), "g.h5"),
    Case(LIES, h5(change=many_attributes), "g.h5"),
    Case(LIES, archive(change=lambda m: m.update({"metadata.json": b"[" * 100_000})), "g.keras"),
    Case(LIES, archive(change=lambda m: m.update({"config.json": b"\x80"})), "g.keras"),
    Case(LIES, archive(change=lambda m: m.update({"/etc/passwd": b"x"})), "outside of itself"),
    Case(LIES, archive(model=stored(b"model.weights.h5", b"", flags=1)), "g.keras"),
    Case(LIES, archive(model=Member(b"model.weights.h5", b"x", zipfile.ZIP_LZMA)), "g.keras"),
)  # fmt: skip

# What only Keras itself would trip over.
VAST = {
    "units": model(layer("Dense", units=1 << 34, use_bias=False), SHAPE),
    "units of many layers": model(*[layer("Dense", units=1 << 15, name=f"d{k}") for k in range(9)], SHAPE),
    "filters": model(DENSE, SHAPE, layer("Conv2DTranspose", filters=1 << 30, kernel_size=[9, 9], padding="same")),
    "kernel": model(DENSE, SHAPE, layer("Conv2DTranspose", filters=1, kernel_size=[1 << 16, 1 << 16], padding="same")),
    "shape": model(DENSE, layer("Reshape", target_shape=[1 << 40, 1, 1])),
    "upsampling": model(DENSE, SHAPE, layer("UpSampling2D", size=[1 << 16, 1 << 16])),
    "padding": model(DENSE, SHAPE, layer("ZeroPadding2D", padding=[[1 << 20, 0], [1 << 20, 0]])),
    "repetition": model(DENSE, layer("RepeatVector", n=1 << 40), SHAPE),
    "vocabulary": model(layer("Embedding", input_dim=1 << 34, output_dim=1 << 10), SHAPE),
    "negative units": model(layer("Dense", units=-5), SHAPE),
    "no units": model(layer("Dense", units=0), SHAPE),
    "units of text": model(layer("Dense", units="16"), SHAPE),
    "no number": model(layer("Dense", units=float("inf")), SHAPE),
}  # fmt: skip
