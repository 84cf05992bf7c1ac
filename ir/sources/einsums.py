"""The Einsums of a file that multiply by a weight, as MatMuls; those that only move axes, as Transpose."""

from __future__ import annotations

import math

import onnx_ir as ir

from ..onnx.graph import OnnxView
from ..onnx.lazy import lazy
from ..ops.contraction import Projection, permutation, projection
from .written_out import Result, Written, write_out


def write_out_einsums(model: ir.Model) -> int:
    """Writes them out, in place; returns how many there were.

    The weight becomes the matrix (inputs, outputs), under its own name, made when it is read. One with other
    uses, or read as different matrices, stays as it is, and so do its Einsums.
    """
    if not any(node.op_type == "Einsum" for node in ir.traversal.RecursiveGraphIterator(model.graph)):
        return 0
    view = OnnxView(model)
    forms: dict[ir.Node, tuple[ir.Value, Projection]] = {}
    for weight in model.graph.initializers.values():
        found = {use.node: _form(use.node, weight, view) for use in weight.uses()}
        known = {node: (weight, form) for node, form in found.items() if form is not None}
        one = len({form.weight for _, form in known.values()}) == 1
        if one and len(known) == len(found) and not weight.is_graph_output():
            forms |= known
    count = write_out(model, {"Einsum": lambda write: _written(write, forms.get(write.node))})
    for weight, form in dict(forms.values()).items():
        weight.const_value = _matrix(weight, form)
        weight.shape = weight.const_value.shape
    return count


def _form(node: ir.Node, weight: ir.Value, view: OnnxView) -> Projection | None:
    if node.op_type != "Einsum" or node.domain or len(node.inputs) != 2 or weight.const_value is None:
        return None
    place = node.inputs.index(weight)
    x = node.inputs[1 - place]
    if x is None or x is weight or x.const_value is not None or x.is_initializer():
        return None
    shape = view.of(x).shape if x in view else None
    form = projection(node.attributes["equation"].as_string(), place, None if shape is None else len(shape))
    sizes = weight.const_value.shape.numpy()
    if form is None or len(sizes) != len(form.weight):
        return None
    pairs = zip(form.x[form.rows :], form.weight[form.outputs :], strict=True)
    # An axis of 1 is repeated by Einsum, and not by MatMul.
    fits = shape is None or all(shape[a] in (sizes[b], None) or isinstance(shape[a], str) for a, b in pairs)
    return form if fits else None


def _written(write: Written, found: tuple[ir.Value, Projection] | None) -> Result:
    if found is None:
        order = permutation(write.attr("equation", ""))
        return None if order is None else (write("Transpose", write.needed(0), perm=list(order)),)
    weight, form = found
    x = write.needed(1 if write.input(0) is weight else 0)
    assert weight.const_value is not None
    shape = weight.const_value.shape.numpy()
    sizes = [shape[axis] for axis in form.weight]
    outputs, summed = sizes[: form.outputs], sizes[form.outputs :]
    kept = [0] * form.rows
    if form.x != tuple(sorted(form.x)):
        x = write("Transpose", x, perm=list(form.x))
    if len(summed) > 1:
        x = write("Reshape", x, write.const([*kept, math.prod(summed)]))
    y = write("MatMul", x, weight)
    if len(outputs) > 1:
        y = write("Reshape", y, write.const([*kept, *outputs]))
    return (
        y if form.result == tuple(sorted(form.result)) else write("Transpose", y, perm=list(form.result)),
    )


def _matrix(weight: ir.Value, form: Projection) -> ir.LazyTensor:
    tensor = weight.const_value
    assert tensor is not None
    sizes = tensor.shape.numpy()
    perm = (*form.weight[form.outputs :], *form.weight[: form.outputs])
    inputs = math.prod(sizes[axis] for axis in form.weight[form.outputs :])
    return lazy(
        lambda: tensor.numpy().transpose(perm).reshape(inputs, -1),
        tensor.dtype,
        (inputs, tensor.size // inputs),
        weight.name,
    )
