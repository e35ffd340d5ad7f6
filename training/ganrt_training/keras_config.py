"""The description of a Keras model, from a file that nobody vouches for: what of it Keras gets to see.

A description names classes and functions, and Keras fetches and calls them; most holes in its loading were names that
no model needs (CVE-2024-3660, 2025-1550, 2025-8747, 2025-9905, 2025-9906, 2025-12058). So nothing is passed on as it
stands. A new description is built, of known layers with plain values, each with the module where Keras has it. What
only training needs (initializers, regularizers, constraints, losses, the optimizer) is left out, and what Keras 2
wrote in other words is said in those of Keras 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from ganrt.errors import TrainingError

_LAYERS = """
Activation Add AlphaDropout Average AveragePooling2D BatchNormalization Concatenate Conv2D Conv2DTranspose Cropping2D
Dense DepthwiseConv2D Dropout ELU Embedding Flatten GaussianDropout GaussianNoise GlobalAveragePooling2D
GlobalMaxPooling2D GroupNormalization InputLayer LayerNormalization LeakyReLU MaxPooling2D Maximum Minimum Multiply
PReLU Permute ReLU RepeatVector Rescaling Reshape SeparableConv2D Softmax SpatialDropout2D Subtract UnitNormalization
UpSampling2D ZeroPadding2D
"""
_NUMPY_OPS = """
Absolute Add Clip Concatenate Cos Divide Exp ExpandDims Maximum Minimum Multiply Negative Reshape Sin Sqrt Square
Squeeze Subtract Tanh Transpose TrueDivide
"""
_NN_OPS = "Elu Gelu LeakyRelu Relu Sigmoid Silu Softplus"
_NAMES = """
celu elu exponential gelu hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid mish relu relu6
selu sigmoid silu soft_shrink softmax softplus softsign squareplus swish tanh tanh_shrink
"""
LAYERS = frozenset(_LAYERS.split())
ACTIVATIONS = frozenset(_NAMES.split())
# What Keras 3 writes for arithmetic on tensors: class → module.
_OPS = dict.fromkeys(_NUMPY_OPS.split(), "keras.src.ops.numpy") | dict.fromkeys(_NN_OPS.split(), "keras.src.ops.nn")
_MODELS = {"Sequential": "keras", "Functional": "keras.src.models.functional", "Model": "keras.src.models.functional"}
_ACTIVATION_LAYERS = ("ELU", "LeakyReLU", "ReLU", "Softmax")
_INPUT_DTYPES = ("float32", "int32", "int64")
_SHAPES = ("batch_input_shape", "batch_shape", "build_input_shape", "input_shape")
_MAX_DEPTH = 60

_CUSTOM = (
    "Rebuild it from layers of Keras, load the weights and save it again; or export it to ONNX in the code that has "
    "the object, and run ganrt export on that."
)
_DAMAGED = "Save the model again with model.save."


@dataclass(frozen=True)
class _Reader:
    where: str
    keras_2: bool  # which major version wrote it

    def refuse(self, what: str, hint: str = _CUSTOM) -> NoReturn:
        raise TrainingError(f"{self.where}: {what}", hint)


def checked_config(config: object, where: str, *, keras_2: bool) -> dict[str, Any]:
    """A description of the same model that is safe to give to Keras 3, made of what was read from a file as JSON.

    ``keras_2`` says that Keras 2 wrote it. Every batch in it is of any size. Raises TrainingError, calling the file
    ``where``, when it is no description of a model, names something else than layers of Keras, or says what Keras 3
    would take otherwise.
    """
    reader = _Reader(where, keras_2)
    try:
        found = _layer(reader, config, 0)
    except RecursionError:
        reader.refuse("its description is nested too deeply", _DAMAGED)
    if found["class_name"] not in _MODELS:
        reader.refuse(f"describes a layer ({found['class_name']}), not a model", _DAMAGED)
    return found


def _layer(reader: _Reader, node: object, depth: int) -> dict[str, Any]:
    if not isinstance(node, dict) or not isinstance(node.get("class_name"), str):
        reader.refuse(f"{node!r:.60} stands where its description should have a layer", _DAMAGED)
    if depth > _MAX_DEPTH:
        reader.refuse("its description is nested too deeply", _DAMAGED)
    name, config = node["class_name"], node.get("config")
    if not isinstance(config, dict):
        reader.refuse(f"describes a {name!r:.60} by {config!r:.60}", _DAMAGED)
    called = f"its layer {config.get('name', node.get('name'))!r:.60}"
    module = _module(reader, node, config, called)
    if name in _MODELS:
        found = _model(reader, name, config, depth)
    else:
        found = {key: _value(reader, key, value, called, name) for key, value in config.items()}
        _in_words_of_keras_3(reader, name, found, called)
    made: dict[str, Any] = {
        "module": module,
        "class_name": "Functional" if name == "Model" else name,
        "config": found,
        "registered_name": None,
    }
    if "inbound_nodes" in node:
        made["name"] = node.get("name", config.get("name"))
        made["inbound_nodes"] = _nodes(reader, node["inbound_nodes"], called)
    return made


def _module(reader: _Reader, node: dict[str, Any], config: dict[str, Any], called: str) -> str:
    """Where Keras has the class: from the table, whatever the file says; what it says must be a place of Keras."""
    name, said, registered = node["class_name"], node.get("module"), node.get("registered_name")
    if name in ("Lambda", "__lambda__"):
        reader.refuse(f"{called} is a Lambda: it holds Python code, and a file's code is never run")
    if said is not None and said != "keras" and not str(said).startswith(("keras.", "tf_keras.")):
        reader.refuse(f"{called} names {said!r:.60}.{name:.60}; only layers of Keras are used")
    if registered not in (None, name):
        reader.refuse(f"{called} is a {registered!r:.60}, which is no layer of Keras")
    if name in _MODELS:
        return _MODELS[name]
    # Files in HDF5 leave the module out; only layers have a dtype there.
    if name in _OPS and (".ops." in said if said else name not in LAYERS or not {"dtype", "trainable"} & set(config)):
        return _OPS[name]
    if name not in LAYERS:
        reader.refuse(f"{called} is a {name!r:.60}, which is not among the layers that are read")
    return "keras.layers"


def _model(reader: _Reader, name: str, config: dict[str, Any], depth: int) -> dict[str, Any]:
    layers = config.get("layers")
    if not isinstance(layers, list) or not layers:
        reader.refuse(f"its {name} {config.get('name')!r:.60} has no layers", _DAMAGED)
    made: dict[str, Any] = {"name": config.get("name"), "trainable": config.get("trainable") is not False}
    if name == "Sequential":
        first = layers[0]
        if not _has_input(first):
            shape, dtype = _given_shape(config, first)
            if shape is not None:
                described = {"batch_shape": shape, "dtype": dtype, "name": f"{first['config'].get('name')}_input"}
                layers = [{"class_name": "InputLayer", "config": described}, *layers]
    else:
        for key in ("input_layers", "output_layers"):
            ends = config.get(key)
            named = isinstance(ends, dict) and all(_is_source(end) for end in ends.values())
            made[key] = _plain(reader, list(ends.values()) if named and isinstance(ends, dict) else ends, f"its {key}")
        if not made["input_layers"] or not made["output_layers"]:
            reader.refuse("its description lacks inputs or outputs", _DAMAGED)
    made["layers"] = [_layer(reader, layer, depth + 1) for layer in layers]
    if reader.keras_2 and name != "Sequential":
        _count_calls_from_zero(made)
    return made


def _count_calls_from_zero(model: dict[str, Any]) -> None:
    """For Keras 2, a model had been called once, to make it, when it was first used inside of another."""
    nested = {layer.get("name"): layer["class_name"] for layer in model["layers"] if layer["class_name"] in _MODELS}
    calls = [entry for layer in model["layers"] for node in layer.get("inbound_nodes", ()) for entry in node]
    ends = [end for end in model["output_layers"] if _is_source(end)]
    for name, kind in nested.items():
        used = [entry for entry in calls if _is_source(entry) and entry[0] == name]
        made = [end for end in ends if end[0] == name]
        if min((entry[1] for entry in [*used, *made]), default=0) >= 1:
            for entry in used:
                entry[1] -= 1
            for end in made if kind == "Sequential" else ():  # for an output, Keras 3 counts a Functional so itself
                end[1] -= 1


def _has_input(layer: object) -> bool:
    """Whether a Sequential that begins with ``layer`` knows the shape of its input."""
    if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict):
        return True  # _layer says what is wrong with it
    if layer.get("class_name") in ("InputLayer", "Functional", "Model"):
        return True
    within = layer["config"].get("layers")
    return bool(
        layer.get("class_name") == "Sequential" and isinstance(within, list) and within and _has_input(within[0])
    )


def _given_shape(config: dict[str, Any], first: dict[str, Any]) -> tuple[Any, Any]:
    """The shape [None, ...] that a Sequential without an InputLayer says elsewhere, and its dtype."""
    for told in (first["config"], config):
        for key in _SHAPES:
            if told.get(key) is not None:
                return told[key], first["config"].get("dtype") or "float32"
    return None, None


def _value(reader: _Reader, key: str, value: object, called: str, layer: str) -> Any:
    if key.endswith("_initializer"):
        return "zeros"  # the weights come from the file
    if key.endswith(("_regularizer", "_constraint")):
        return None
    if key in _SHAPES:
        shape = _plain(reader, value, called)
        return [None, *shape[1:]] if isinstance(shape, list) and shape and key != "input_shape" else shape
    if key == "dtype":
        return _dtype(reader, value, called, layer)
    if key.endswith("activation"):
        return _activation(reader, value, called)
    if key == "interpolation" and value not in ("nearest", "bilinear"):
        reader.refuse(
            f"{called} interpolates by {value!r:.60}, where PyTorch and TensorFlow differ",
            "Expected nearest or bilinear. Export it to ONNX with tf2onnx, and run ganrt export on that.",
        )
    return _plain(reader, value, called)


def _in_words_of_keras_3(reader: _Reader, name: str, config: dict[str, Any], called: str) -> None:
    for key in ("batch_input_shape", "input_shape"):
        shape = config.pop(key, None)
        if name == "InputLayer" and key == "batch_input_shape" and shape is not None:
            config["batch_shape"] = shape
    axis = config.get("axis")
    if name == "BatchNormalization" and isinstance(axis, list):
        if len(axis) != 1:
            reader.refuse(f"{called} normalises over the axes {axis!r:.60}", "Expected one axis, that of the channels.")
        config["axis"] = axis[0]
    if name in ("Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D") and config.pop("groups", 1) != 1:
        reader.refuse(f"{called} is a {name} in groups, which Keras 3 has not")
    if name == "Embedding":
        config.pop("input_length", None)
    if name == "GaussianNoise":
        config["stddev"] = 0.0  # it does nothing after training, and Keras 3 takes at most 1


def _dtype(reader: _Reader, value: object, called: str, layer: str) -> str | None:
    if isinstance(value, dict):
        inner = value.get("config")
        known = value.get("class_name") in ("DTypePolicy", "Policy", "PolicyV1") and isinstance(inner, dict)
        value = inner.get("name") if known and isinstance(inner, dict) else value.get("class_name")
    if value in ("mixed_float16", "mixed_bfloat16"):
        return "float32"  # that of its weights
    if value is None or value in (_INPUT_DTYPES if layer == "InputLayer" else ("float32",)):
        return value if value is None else str(value)
    expected = "float32, int32 or int64" if layer == "InputLayer" else "float32"
    reader.refuse(f"{called} computes with {value!r:.60}", f"Expected {expected}. Rebuild it so and load the weights.")


def _activation(reader: _Reader, value: object, called: str) -> Any:
    if isinstance(value, dict) and value.get("class_name") in _ACTIVATION_LAYERS:
        return _layer(reader, value, 0)
    if isinstance(value, dict) and value.get("class_name") == "function":
        module = value.get("module")
        if module not in (None, "builtins") and not str(module).startswith(
            ("keras.activations", "keras.src.activations")
        ):
            reader.refuse(f"{called} has the activation {value.get('config')!r:.60} of {module!r:.60}")
        value = value.get("config")
    if value is None:
        return None
    if not isinstance(value, str) or value not in ACTIVATIONS:
        reader.refuse(f"{called} has the activation {value!r:.80}, which is none of Keras's")
    if value == "hard_sigmoid" and reader.keras_2:
        reader.refuse(
            f"{called} has the activation 'hard_sigmoid', by which Keras 2 and Keras 3 mean different functions",
            "Export it to ONNX with tf2onnx, and run ganrt export on that.",
        )
    return value


def _nodes(reader: _Reader, nodes: object, called: str) -> list[Any]:
    """How a layer is called: lists [layer, node, tensor, options] in Keras 2, args and kwargs in Keras 3."""
    if not isinstance(nodes, list):
        reader.refuse(f"{called} is called with {nodes!r:.60}", _DAMAGED)
    made: list[Any] = []
    for node in nodes:
        if isinstance(node, dict):
            args, kwargs = node.get("args"), node.get("kwargs") or {}
            if not isinstance(args, list) or not isinstance(kwargs, dict):
                reader.refuse(f"{called} is called with {node!r:.60}", _DAMAGED)
            _check_training(reader, kwargs, called)
            given = {key: _argument(reader, value, called) for key, value in kwargs.items()}
            made.append({"args": [_argument(reader, value, called) for value in args], "kwargs": given})
            continue
        if not isinstance(node, list):
            reader.refuse(f"{called} is called with {node!r:.60}", _DAMAGED)
        for entry in node:
            if not isinstance(entry, list) or len(entry) not in (3, 4) or not _is_source(entry[:3]):
                reader.refuse(f"{called} is called with {entry!r:.60}", _DAMAGED)
            options = entry[3] if len(entry) == 4 else {}
            if not isinstance(options, dict) or not set(options) <= {"training", "mask"}:
                reader.refuse(f"{called} is called with {options!r:.80}")
            _check_training(reader, options, called)
        made.append([entry[:3] for entry in node])
    return made


def _check_training(reader: _Reader, options: dict[Any, Any], called: str) -> None:
    if options.get("training") not in (None, False, 0):
        reader.refuse(f"{called} is always in training mode: it draws numbers, or mixes the images of a batch")


def _argument(reader: _Reader, value: object, called: str, depth: int = 0) -> Any:
    if isinstance(value, list) and depth < 3:
        return [_argument(reader, item, called, depth + 1) for item in value]
    if not isinstance(value, dict) or value.get("class_name") != "__keras_tensor__":
        return _plain(reader, value, called)
    told = value.get("config")
    if not isinstance(told, dict) or not _is_source(told.get("keras_history")):
        reader.refuse(f"{called} is called with a tensor of nowhere", _DAMAGED)
    made = {"shape": _plain(reader, told.get("shape"), called), "dtype": "float32"}  # Keras reads the history alone
    return {"class_name": "__keras_tensor__", "config": made | {"keras_history": told["keras_history"]}}


def _is_source(value: object) -> bool:
    """Whether it is [layer, node, tensor]."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], str)
        and all(isinstance(number, int) and number >= 0 for number in value[1:])
    )


def _plain(reader: _Reader, value: object, called: str, depth: int = 0) -> Any:
    """Numbers, texts, lists of them. Keras 2 has dicts for tuples."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict) and value.get("class_name") in ("__tuple__", "TensorShape"):
        value = value.get("items")
    if isinstance(value, list) and depth < 10:
        return [_plain(reader, item, called, depth + 1) for item in value]
    if isinstance(value, dict) and "class_name" in value:
        reader.refuse(f"{called} holds a {value['class_name']!r:.60}, which no layer that is read has")
    reader.refuse(f"{called} holds {value!r:.80}, which no layer that is read has")
