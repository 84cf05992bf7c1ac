"""One ONNX node with known operands: what its results will be like, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from ....ir.onnx.lazy import lazy

# Not a function of the operands, or a node whose whole point is to stay: a dequantized weight is a float one.
_UNFOLDABLE = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli",
    "Dropout", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
}  # fmt: skip
_SHAPE_LIKE = 1024  # bytes; larger integer operands are data, which shape inference does not need

Constants = Sequence[ir.TensorProtocol | None]


def foldable(node: ir.Node) -> bool:
    """Whether a node's results follow from its operands alone."""
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return (
        node.domain == ""
        and node.op_type not in _UNFOLDABLE
        and not any(attribute.is_ref() or attribute.type in graphs for attribute in node.attributes.values())
    )


class Evaluation:
    """A node bound to its operands; independent of the graph, which may go away.

    Args:
        node: a foldable node of the ONNX domain.
        operands: a tensor for each of its inputs, None for those it leaves out.
        opset: version of the ONNX operator set.
    """

    def __init__(self, node: ir.Node, operands: Constants, opset: int) -> None:
        self.proto = ir.serde.serialize_node(node)
        self.operands = operands
        self.opset = opset

    def results(self) -> list[tuple[ir.DataType, tuple[int, ...]]] | None:
        """Type and shape of every result, found without computing them; None if they cannot be told."""
        tensors = {n: t for n, t in zip(self.proto.input, self.operands, strict=True) if t is not None}
        types = {
            name: onnx.helper.make_tensor_type_proto(int(tensor.dtype), list(tensor.shape.numpy()))
            for name, tensor in tensors.items()
        }
        small = {
            name: ir.serde.serialize_tensor(tensor)
            for name, tensor in tensors.items()
            if tensor.dtype.is_integer() and tensor.nbytes <= _SHAPE_LIKE
        }
        try:
            found = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(self.proto.op_type, self.opset, ""),
                self.proto,
                types,
                small,
                opset_imports=[onnx.helper.make_opsetid("", self.opset)],
            )
        except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError):
            return None
        results = []
        for name in self.proto.output:
            kind = found[name].tensor_type if name in found else onnx.TypeProto.Tensor()
            if not kind.elem_type or not kind.HasField("shape"):
                return None
            if not all(dim.HasField("dim_value") for dim in kind.shape.dim):
                return None
            results.append((ir.DataType(kind.elem_type), tuple(dim.dim_value for dim in kind.shape.dim)))
        return results

    def compute(self) -> list[np.ndarray]:
        """Every result, by the ONNX reference implementation where it is right.

        Raises:
            NotImplementedError, RuntimeError or TypeError: it does not know the operator or its operands.
        """
        if self.proto.op_type == "GatherElements":
            return [self._gather_elements()]
        from onnx.reference import ReferenceEvaluator  # slow to import, and most graphs need it late or never

        feeds = {
            name: tensor.numpy()
            for name, tensor in zip(self.proto.input, self.operands, strict=True)
            if tensor is not None
        }
        graph = onnx.helper.make_graph(
            [self.proto],
            "node",
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in feeds],
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in self.proto.output],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", self.opset)])
        return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, feeds)]

    def _gather_elements(self) -> np.ndarray:
        """The reference fails along more than 63 elements, or takes others (onnx 1.23)."""
        data, indices = (tensor.numpy() for tensor in self.operands if tensor is not None)
        axis = next((each.i for each in self.proto.attribute if each.name == "axis"), 0)
        return np.take_along_axis(data, indices % data.shape[axis], axis)

    def lazy(self, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.LazyTensor:
        """The only result as a tensor computed whenever it is read, and not kept."""
        return lazy(lambda: self.compute()[0], dtype, shape, self.proto.output[0])


def nbytes(dtype: ir.DataType, shape: tuple[int, ...]) -> float:
    """Bytes that a tensor takes."""
    return prod(shape) * dtype.itemsize
