"""TVM's ONNX importer, reading weights from onnx_ir."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from ....ir.errors import BackendError


class Importer(onnx_frontend.ONNXGraphImporter):
    """tvm.relax.frontend.onnx.from_onnx, without a copy of the weights in a protobuf.

    A node's domain counts.
    """

    def __init__(self) -> None:
        super().__init__({}, "float32", sanitize=False)
        self._tensors: dict[str, Any] = {}

    def imported(self, model: ir.Model) -> tvm.IRModule:
        """A module of one function, "main". The model loses its weights on the way.

        Raises:
            BackendError: an operator that TVM lacks.
        """
        known = onnx_frontend._get_convert_map()
        for node in model.graph:
            if node.domain not in ("", "ai.onnx") or node.op_type not in known:
                name = f"{node.domain}.{node.op_type}".removeprefix(".")
                raise BackendError(f"TVM has no operator {name} (at '{node.outputs[0].name}').")
        for name, value in list(model.graph.initializers.items()):
            self._tensors[name] = value.const_value
            del model.graph.initializers[name]
        return self.from_onnx(ir.to_proto(model).graph, model.graph.opset_imports[""])

    def _parse_graph_initializers(self, graph: Any) -> None:
        for name, tensor in self._tensors.items():
            self._nodes[name] = relax.const(tvm.runtime.tensor(np.asarray(tensor.numpy(), order="C")))
