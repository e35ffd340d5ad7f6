"""The same generator with float16 weights and arithmetic, for GPUs: half the bytes, and tensor cores."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from ganrt.providers import runtime


def to_half(model: onnx.ModelProto, raw: str) -> onnx.ModelProto:
    """A copy of a finished graph whose every float32 is a float16 up to the tensor ``raw``.

    Inputs and outputs stay what they are (w and what the mapping makes of z among them).

    One that is in half precision already is left as it is. Inputs stay what they are, and so does the pixel step,
    which needs more than float16's 11 bits: ``raw`` is cast to float32. Weights beyond float16's range (65,504) are
    cut to it, which the proof of export tells.
    """
    runtime()  # the first import, without telemetry
    # ONNX Runtime's own converter, in its package; it knows which operators take no float16.
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    finished = list(graph.output)
    after, body, steps = {raw}, list[onnx.NodeProto](), list[onnx.NodeProto]()
    for node in graph.node:
        if after.isdisjoint(node.input):
            body.append(node)
        else:
            steps.append(node)
            after.update(node.output)
    of_steps = {name for node in steps for name in node.input}
    values = [tensor for tensor in graph.initializer if tensor.name in of_steps]
    others = [tensor for tensor in graph.initializer if tensor.name not in of_steps]
    inputs = {value.name for value in graph.input}  # psi has a default
    if not any(tensor.data_type == TensorProto.FLOAT and tensor.name not in inputs for tensor in others):
        return model
    del graph.node[:], graph.initializer[:]
    graph.node.extend(body)
    graph.initializer.extend(others)
    others_made = [value for value in finished if value.name != "images"]
    del graph.output[:]
    graph.output.extend([helper.make_tensor_value_info(raw, TensorProto.FLOAT, None), *others_made])
    model = convert_float_to_float16(model, keep_io_types=True)
    OnnxModel.graph_topological_sort(model.graph, is_deterministic=True)
    model.graph.node.extend(steps)
    model.graph.initializer.extend(values)
    del model.graph.output[:]
    model.graph.output.extend(finished)
    return model
