"""TVM's ONNX importer, reading weights from onnx_ir."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import onnx_ir as ir
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from ....ir.errors import BackendError
from ....ir.host.quiet import quiet
from ....ir.program import Program
from ....passes.canonical.fold_constants import fold
from ....passes.canonical.specialise_shapes import SpecialiseShapes
from ....passes.manager.contract import Context
from .node import Node
from .onnx_operators import CONVERTERS

_FOLD = 1 << 24  # bytes: masks and position terms of long inputs are computed now, tables stay tables


def import_onnx(program: Program, sizes: Mapping[str, int]) -> Any:
    """A Relax module whose function "main" takes the program's inputs and returns its outputs.

    Args:
        program: of the onnx dialect; it is not edited.
        sizes: of every symbol in the shapes of the inputs.

    Raises:
        BackendError: TVM has no operator for one of the graph's.
    """

    program = program.clone()
    with quiet():
        program = SpecialiseShapes(others=tuple(sizes.items())).run(program, Context()).program
        fold(program.graph, _FOLD, Context())
    return Importer().imported(program.graph)


class Importer(onnx_frontend.ONNXGraphImporter):
    """tvm.relax.frontend.onnx.from_onnx with converters of ours, and without a copy of the weights in a
    protobuf.

    An operator goes by its name with its domain before it, unless that is the standard one.
    """

    def __init__(self) -> None:
        super().__init__({}, "float32", sanitize=False)
        self._tensors: dict[str, Any] = {}

    def imported(self, model: ir.Model) -> tvm.IRModule:
        """A module of one function, "main". The model loses its weights on the way.

        Raises:
            BackendError: an operator that TVM lacks.
        """
        known = {*onnx_frontend._get_convert_map(), *CONVERTERS}
        for node in model.graph:
            if node.domain not in ("", "ai.onnx"):
                node.op_type, node.domain = f"{node.domain}.{node.op_type}", ""
            if node.op_type not in known:
                raise BackendError(f"TVM has no operator {node.op_type} (at '{node.outputs[0].name}').")
        for name, value in list(model.graph.initializers.items()):
            self._tensors[name] = value.const_value
            del model.graph.initializers[name]
        # Of a size of 0, such as a cache before its first token, the importer would make an unknown one.
        self._shape = {v.name: list(v.shape.numpy()) for v in model.graph.inputs if v.shape is not None}
        with redirect_stdout(io.StringIO()):  # an importer in trouble prints its operands
            return self.from_onnx(ir.to_proto(model).graph, model.graph.opset_imports[""])

    def _parse_graph_initializers(self, graph: Any) -> None:
        for name, tensor in self._tensors.items():
            array = np.asarray(tensor.numpy(), order="C")
            try:
                self._nodes[name] = relax.const(tvm.runtime.tensor(array))
            except (TypeError, ValueError, RuntimeError):
                raise BackendError(f"TVM has no tensors of {tensor.dtype.name} (weight '{name}').") from None

    def _check_for_unsupported_ops(self, graph: Any) -> None:
        """Done by then, with our converters in mind."""

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        node = Node(op_name, list(inputs), attrs, self.bb, list(self._inputs.values()), opset)
        try:
            found = CONVERTERS[op_name](node) if op_name in CONVERTERS else None
            if found is None:
                found = super()._convert_operator(op_name, inputs, attrs, opset)
        except BackendError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[-1]
            raise BackendError(f"TVM cannot import operator {op_name}: {reason}") from error
        found = self.bb.emit(found) if isinstance(found, tvm.ir.Call) else found
        if not _fixed(found.ty):
            raise BackendError(f"TVM builds for fixed sizes, and {op_name} gives one that data decides.")
        return found


def _fixed(kind: Any) -> bool:
    """Whether every size in a Relax type is known."""
    if isinstance(kind, relax.TupleType):
        return all(_fixed(field) for field in kind.fields)
    if not isinstance(kind, relax.TensorType):
        return True
    shape = kind.shape
    return isinstance(shape, relax.ShapeExpr) and all(isinstance(d, tvm.tirx.IntImm) for d in shape.values)
