"""What rounding to 16 bits does to a program: the same graph in float32, with and without it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from .graph import Editor, OnnxView, clone, subgraphs
from .lazy import rounded

_BITS = {ir.DataType.FLOAT16: 11, ir.DataType.BFLOAT16: 8}  # of the significand, the leading one included
_HALVES = tuple(_BITS)
_FLOAT = ir.DataType.FLOAT
# Attributes that name a type.
_TYPES = frozenset({"to", "dtype", "output_dtype", "precision", "stash_type", "softmax_precision"})


def in_half(model: ir.Model) -> str:
    """A sentence for who brings a model that computes in 16 bits; empty for others."""
    view = OnnxView(model)
    types = [
        view.of(node.outputs[0]).dtype
        for node in model.graph
        if node.op_type in {"MatMul", "Gemm"} and node.outputs[0].name
    ]
    narrow = {dtype.name.lower() for dtype in _HALVES} & {str(each) for each in types}
    if not narrow:
        return ""
    count = sum(each in narrow for each in types)
    return (
        f"{count} of {len(types)} products are computed in {' and '.join(sorted(narrow))}: attention, norms, "
        "GELUs and embeddings are fused and products put in int8 in float32 alone; export the model in "
        "float32 to have them"
    )


def widened(
    model: ir.Model, rounding: bool = False, types: Collection[ir.DataType] = _HALVES
) -> ir.Model | None:
    """The model with float32 in place of float16 and bfloat16 everywhere but in its inputs; None if it has
    neither.

    Every number of either is one of float32, so that weights and constants stay what they are. Weights are
    converted as they are read.

    Args:
        rounding: round every result that was of 16 bits to as many as it had. ONNX Runtime may leave that
            out, as it computes such a graph in float32 too.
        types: those to replace.
    """
    twin = clone(model)
    narrow = _narrow(twin, types)
    changed = bool(narrow)
    for graph in twin.graphs():
        for weight in graph.initializers.values():
            if weight.const_value is not None and weight.const_value.dtype in types:
                weight.const_value = rounded(weight.const_value, _FLOAT)
                weight.dtype, changed = _FLOAT, True
        for node in graph:
            for attribute in list(node.attributes.values()):
                new = _attribute(attribute, types)
                if new is not None:
                    node.attributes[attribute.name] = new
                    changed = True
            for value in (*node.outputs, *(v for inner in subgraphs(node) for v in inner.inputs)):
                if value.dtype in types:
                    value.dtype, changed = _FLOAT, True
    changed |= _cast_inputs(twin, types)
    if rounding:
        editor = Editor(twin)
        for value, dtype in narrow.items():
            _round(editor, value, _BITS[dtype])
    return twin if changed else None


def _narrow(model: ir.Model, types: Collection[ir.DataType]) -> dict[ir.Value, ir.DataType]:
    """The results in 16 bits of the main graph, and which type they have."""
    names = {dtype.name.lower(): dtype for dtype in types}
    graph = OnnxView(model)
    found = {}
    for node in model.graph:
        for value in node.outputs:
            dtype = value.dtype or (names.get(graph.of(value).dtype or "") if value.name else None)
            if dtype is not None and dtype in types:
                found[value] = dtype
    return found


def _attribute(attribute: ir.Attr, types: Collection[ir.DataType]) -> ir.Attr | None:
    if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in types:
        return ir.AttrTensor(attribute.name, rounded(attribute.value, _FLOAT))
    if attribute.type == ir.AttributeType.INT and attribute.name in _TYPES and attribute.value in types:
        return ir.AttrInt64(attribute.name, int(_FLOAT))
    return None


def _cast_inputs(model: ir.Model, types: Collection[ir.DataType]) -> bool:
    """Casts every 16-bit input, for all that reads it; whether there are any."""
    halves = [value for value in model.graph.inputs if value.dtype in types]
    for value in halves:
        cast = ir.node("Cast", [value], {"to": int(_FLOAT)}, name=f"{value.name}.widened")
        wide = cast.outputs[0]
        wide.name, wide.dtype, wide.shape = f"{value.name}.widened", _FLOAT, value.shape
        value.replace_all_uses_with(wide, replace_graph_outputs=True)
        cast.replace_input_with(0, value)
        first = next(iter(model.graph), None)
        model.graph.append(cast) if first is None else model.graph.insert_before(first, cast)
    return bool(halves)


def _round(editor: Editor, value: ir.Value, bits: int) -> None:
    """Round a result to the nearest number of so many bits, ties to even.

    Source: Veltkamp's splitting (Dekker, 1971, doi:10.1007/BF01397083): with c = x (2^(24 - bits) + 1),
    c - (c - x) is x rounded. What overflows on the way, infinities among it, stays as it is.
    """
    name, after = f"{value.name}.rounded", value.producer()
    factor = editor.initializer(np.array(2.0 ** (24 - bits) + 1, np.float32), f"{name}.factor")

    def add(op: str, *inputs: ir.Value) -> ir.Value:
        nonlocal after
        after = editor.node(op, inputs, name, after=after).outputs[0].producer()
        assert after is not None
        return after.outputs[0]

    scaled = add("Mul", value, factor)
    nearest = add("Sub", scaled, add("Sub", scaled, value))
    result = add("Where", add("IsInf", scaled), value, nearest)
    assert after is not None
    inside = {scaled.producer(), result.producer(), *(use.node for use in scaled.uses())}
    result.type, result.shape = value.type, value.shape
    if value.is_graph_output():
        name = str(value.name)
        editor.graph.outputs[editor.graph.outputs.index(value)] = result
        value.name, result.name = f"{name}.exact", name
    for node, position in tuple(value.uses()):
        if node not in inside:
            node.replace_input_with(position, result)
