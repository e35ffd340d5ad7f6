"""What training adds to a network as it acts at inference: batch norms are affine maps, parametrised weights numbers.

In PyTorch networks and in ONNX graphs.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper, shape_inference
from torch import nn
from torch.nn.utils import parametrize

from ganrt.errors import TrainingError
from ganrt_training.layers import Affine, ConditionalBatchNorm2d


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy of a network in inference mode whose 2-d batch norms, conditional ones too, are affine maps.

    Weights under spectral norm become what they are.
    """
    model = copy.deepcopy(model).eval()
    _fold_below(model)
    return model


def _fold_below(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        if parametrize.is_parametrized(child):
            child = _plain(child)
            setattr(parent, name, child)
        if isinstance(child, ConditionalBatchNorm2d):
            setattr(parent, name, child.folded())
        elif isinstance(child, nn.BatchNorm2d):
            setattr(parent, name, _folded(child))
        else:
            _fold_below(child)


@torch.no_grad()
def _plain(layer: nn.Module) -> nn.Module:
    """A layer without its parametrisations.

    PyTorch's own remove_parametrizations changes the class, which a copy shares with its original.
    """
    kind: Any = type(layer).__mro__[1]
    plain: nn.Module = kind.__new__(kind)
    plain.__dict__ = layer.__dict__ | {
        "_parameters": dict(layer._parameters),
        "_modules": {name: child for name, child in layer._modules.items() if name != "parametrizations"},
    }
    for name in layer.parametrizations:  # type: ignore[union-attr]
        plain.register_parameter(name, nn.Parameter(getattr(layer, name).detach(), requires_grad=False))
    return plain


def _folded(norm: nn.BatchNorm2d) -> Affine:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = 1 / torch.sqrt(norm.running_var.double() + norm.eps)
    if norm.affine:
        scale = norm.weight.detach().double() * scale
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        shift = norm.bias.detach().double() + shift
    return Affine(scale.float(), shift.float())


def without_training_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of a graph with each BatchNormalization as Mul and Add, and each Dropout as Identity.

    What they multiply by and add joins the graph's initializers. Raises TrainingError when that cannot be
    computed beforehand.
    """
    graph = model.graph
    inferred = shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        x, y = node.input[0] if node.input else "", node.output[0]
        if node.op_type == "Dropout" and not (len(node.input) > 2 and node.input[2]):
            kept.append(helper.make_node("Identity", [x], [y], name=node.name))
            continue
        if node.op_type != "BatchNormalization":
            kept.append(node)
            continue
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        rank = ranks.get(x, 0)
        if settings.get("training_mode") or rank < 2 or not all(name in constants for name in node.input[1:]):
            raise TrainingError(
                f"the BatchNormalization that makes {y!r} cannot be folded: it is in training mode, its statistics "
                "are computed, or the shape of its input is unknown",
                "Export the generator in inference mode (model.eval() in PyTorch).",
            )
        gain, bias, mean, var = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:])
        scale = gain / np.sqrt(var + settings.get("epsilon", 1e-5))
        for name, value in (("scale", scale), ("shift", bias - mean * scale)):
            shaped = value.astype(np.float32).reshape(-1, *(1,) * (rank - 2))
            graph.initializer.append(numpy_helper.from_array(shaped, f"{y}/{name}"))
        kept.append(helper.make_node("Mul", [x, f"{y}/scale"], [f"{y}/scaled"], name=f"{y}/mul"))
        kept.append(helper.make_node("Add", [f"{y}/scaled", f"{y}/shift"], [y], name=f"{y}/add"))
    return kept
