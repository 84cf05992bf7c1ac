"""A graph in bfloat16 computed in float32: no runtime for CPUs has all operators in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ..errors import CaptureError
from .graph import clone
from .precision import widened

_BFLOAT16, _FLOAT = ir.DataType.BFLOAT16, ir.DataType.FLOAT
# What only converts or moves numbers is in every runtime.
_MOVES = frozenset({"Cast", "Gather", "Identity", "Reshape", "Transpose"})


def computes_in_bfloat16(model: ir.Model) -> bool:
    """Whether anything but a conversion or a move reads or gives bfloat16, or the model itself does.

    Weights stored in bfloat16 and cast where they are used are none, nor are numbers rounded to it and cast
    back.
    """
    if any(value.dtype == _BFLOAT16 for value in (*model.graph.inputs, *model.graph.outputs)):
        return True
    seen, left = set[ir.Value](), list(_begun(model))
    while left:
        value = left.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.is_graph_output():
            return True
        for node in (use.node for use in value.uses()):
            if node.op_type not in _MOVES:
                return True
            left += node.outputs if node.op_type != "Cast" else ()
    return False


def _begun(model: ir.Model) -> Iterator[ir.Value]:
    """Values that are of bfloat16 though nothing that their node reads is."""
    for graph in model.graphs():
        for weight in graph.initializers.values():
            if weight.const_value is not None and weight.const_value.dtype == _BFLOAT16:
                yield weight
        for node in graph:
            for attribute in node.attributes.values():
                tensor = attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == _BFLOAT16
                named = attribute.name in ("to", "dtype") and attribute.value == _BFLOAT16
                if tensor or named:
                    yield from node.outputs


def in_float32(model: ir.Model) -> ir.Model:
    """The model with float32 in place of bfloat16, in its inputs and outputs too: NumPy has no such type.

    Every number of bfloat16 is one of float32, so weights are what they were.

    Raises:
        CaptureError: the bits of a number are read, which has no others.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "BitCast":
            raise CaptureError(
                "a model in bfloat16 is computed in float32, and its node "
                f"{node.name or node.op_type} (BitCast) reads bits: export the model in float32."
            )
    twin = clone(model)
    for value in twin.graph.inputs:
        if value.dtype == _BFLOAT16:
            value.dtype = _FLOAT
    return widened(twin, types=(_BFLOAT16,)) or twin
