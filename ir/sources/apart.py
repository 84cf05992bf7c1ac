"""Operators that stand apart while onnx's version converter (1.23) runs, because it gets them wrong.

* Hardmax keeps its axis over opset 13, where it stopped normalising all axes from there on together. (Softmax
  and LogSoftmax are converted right.)
* Resize of opset 10, and Upsample before it, took sample i / scale of the input; Resize of opset 11 takes
  (i + 0.5) / scale - 0.5 unless it is told.
* An operator that came later than the model's opset is unknown to it: ONNX Runtime saves LayerNormalization
  in models of every opset, with the meaning that it has had since 17.

Source: the version histories at https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from ..onnx.graph import OnnxView
from ..onnx.opset import ONNX
from .written_out import Result, Rule, Written, write_out

_APART = "graphwright.apart"


def set_apart(model: ir.Model, version: int) -> None:
    """Moves what the converter must not see to a domain of its own, in place.

    The converter infers shapes; beyond these nodes it goes by what is known of their results.
    """
    nodes = [n for n in ir.traversal.RecursiveGraphIterator(model.graph) if _wrong(n, version)]
    view = OnnxView(model) if nodes else None
    for node in nodes:
        for result in node.outputs:
            if view is not None and result.shape is None and result in view:
                found = view.of(result).shape
                result.shape = None if found is None else ir.Shape(found)
            given = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
            if result.dtype is None and given is not None:
                result.dtype = given
            if result.dtype is None:
                result.shape = None  # a type is written whole
        node.domain = _APART
    if nodes:
        model.graph.opset_imports[_APART] = 1


def put_back(model: ir.Model) -> None:
    """Writes what stood apart in operators of a model that is converted, in place.

    Raises:
        ValueError: a node lacks an input that it needs.
    """
    write_out(model, _RULES)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain == _APART:
            node.domain = ""
    model.graph.opset_imports.pop(_APART, None)


def _wrong(node: ir.Node, version: int) -> bool:
    if node.domain not in ONNX:
        return False
    if node.op_type == "Hardmax":
        return version < 13
    old = node.op_type == "Upsample" or (node.op_type == "Resize" and version == 10)
    return old or not onnx.defs.has(node.op_type, version, "")


def _hardmax(write: Written) -> Result:
    """Over all axes from `axis` on: of (axes before, the others) flattened, and shaped back."""
    x, axis = write.needed(0), write.attr("axis", 1)
    rank = write.rank(x)
    if rank is not None and axis % rank == rank - 1:
        return (write("Hardmax", x, axis=-1),)
    flat = write("Hardmax", write("Flatten", x, axis=axis), axis=-1)
    return (write("Reshape", flat, write("Shape", x)),)


def _sampled(write: Written) -> Result:
    """Sample i / scale, rounded down where the image grows, and up where it shrinks."""
    given = write.attr("scales", None)
    scales = write.needed(1) if given is None else write.const(given, np.float32)
    known = ir.convenience.get_const_tensor(scales)
    shrinks = known is not None and bool((np.asarray(known.numpy()) < 1).any())
    found = write(
        "Resize", write.needed(0), None, scales, mode=write.attr("mode", "nearest"),
        coordinate_transformation_mode="asymmetric", nearest_mode="ceil" if shrinks else "floor",
    )  # fmt: skip
    return (found,)


_RULES: Mapping[str, Rule] = {
    f"{_APART}::Hardmax": _hardmax,
    f"{_APART}::Upsample": _sampled,
    f"{_APART}::Resize": _sampled,
}
