"""Some nodes of a graph as a model of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from ...ir.onnx.graph import outer_values


def read(node: ir.Node) -> list[ir.Value]:
    """What a node takes, its subgraphs included."""
    return [v for v in (*node.inputs, *outer_values(node)) if v is not None]


def piece(
    nodes: Sequence[ir.Node],
    state: Mapping[str, np.ndarray],
    kept: Sequence[str],
    weights: Mapping[str, ir.TensorProtocol],
    model: ir.Model,
) -> ir.Model:
    """Some nodes in a row as a model, values linked by name."""
    inputs = sorted({str(v.name) for node in nodes for v in read(node)} & state.keys() - weights.keys())
    proto = onnx.helper.make_graph(
        [ir.serde.serialize_node(node) for node in nodes],
        "piece",
        [
            *(
                onnx.helper.make_tensor_value_info(n, _element(state[n]), [None] * state[n].ndim)
                for n in inputs
            ),
            *(
                onnx.helper.make_tensor_value_info(n, int(t.dtype), t.shape.numpy())
                for n, t in weights.items()
            ),
        ],
        [onnx.helper.make_empty_tensor_value_info(name) for name in kept],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    made = ir.from_proto(onnx.helper.make_model(proto, opset_imports=opsets, ir_version=model.ir_version))
    for value in [v for v in made.graph.inputs if v.name in weights]:
        made.graph.inputs.remove(value)
        value.const_value = weights[str(value.name)]
        made.graph.register_initializer(value)
    return made


def _element(array: np.ndarray) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
