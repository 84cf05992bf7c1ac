"""Products of rows that are sorted by group (experts of a mixture), a matrix a group, for the exporter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset20

from ....ir.onnx.lazy import lazy

op: Any = opset20
# transformers' own operator under torch.export, and PyTorch's, by "namespace::name".
_NAMES = ("graphwright::grouped_mm", "transformers::grouped_mm_fallback", "aten::_grouped_mm")


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch.onnx.export takes as custom_translation_table: the operators that are registered here."""
    table = {}
    for name in _NAMES:
        space, _, operator = name.partition("::")
        packet = getattr(getattr(torch.ops, space), operator, None)
        if packet is not None:
            table[packet.default] = _grouped_mm
    return table


def _grouped_mm(input: Any, weight: Any, offs: Any, bias: Any = None, *_: Any, **__: Any) -> Any:
    """(rows, in), (groups, in, out) and (groups,), the end of each group's rows, to (rows, out).

    bias: (groups, out)."""
    groups = weight.shape[0]
    ends = op.Concat(op.Constant(value_ints=[0]), op.Cast(offs, to=7), axis=0)
    parts = []
    for group in range(groups):
        first, last, next_ = (op.Constant(value_ints=[group + k]) for k in range(3))
        rows = op.Slice(
            input, op.Slice(ends, first, last), op.Slice(ends, last, next_), op.Constant(value_ints=[0])
        )
        matrix = op.Gather(weight, op.Constant(value_int=group), axis=0)
        part = op.MatMul(rows, matrix)
        if bias is not None:
            part = op.Add(part, op.Gather(bias, op.Constant(value_int=group), axis=0))
        parts.append(part)
    return op.Concat(*parts, axis=0)


def store_apart(model: ir.Model) -> int:
    """Makes a weight of each matrix of a stack, (experts, rows, columns), where they are only ever taken by
    number, so that it is a layer's like any other, and of each bias, (experts, features); returns how many
    stacks there were."""
    count = 0
    for stack in list(model.graph.initializers.values()):
        tensor = stack.const_value
        if tensor is None or len(tensor.shape) not in (2, 3) or stack.is_graph_output() or not stack.uses():
            continue
        taken = [_taken(use.node, stack) for use in stack.uses()]
        if any(each is None for each in taken):
            continue
        for node, number, perm in [one for each in taken for one in each or ()]:
            name = f"{stack.name}.{number}"
            weight = model.graph.initializers.get(name)
            if weight is None:
                part = _part(tensor, number, perm, name)
                weight = ir.Value(
                    name=name, shape=part.shape, type=ir.TensorType(part.dtype), const_value=part
                )
                model.graph.register_initializer(weight)
            node.outputs[0].replace_all_uses_with(weight)
            model.graph.remove(node, safe=True)
        for node in [use.node for use in stack.uses()]:  # turned, and taken no more
            model.graph.remove(node, safe=True)
        del model.graph.initializers[str(stack.name)]
        count += 1
    return count


def _taken(node: ir.Node, stack: ir.Value) -> list[tuple[ir.Node, int, tuple[int, int]]] | None:
    """(the node that takes it, its number, its axes' order) of each matrix; None if others read it."""
    perm = (0, 1)
    readers = [node]
    if node.op_type == "Transpose" and list(node.attributes.get_ints("perm", ())) == [0, 2, 1]:
        perm, stack = (1, 0), node.outputs[0]
        readers = [use.node for use in stack.uses()]
    found = []
    for reader in readers:
        index = reader.inputs[1] if len(reader.inputs) == 2 else None
        chosen = None if index is None else ir.convenience.get_const_tensor(index)
        if reader.op_type != "Gather" or reader.attributes.get_int("axis", 0) != 0 or chosen is None:
            return None
        if reader.inputs[0] is not stack or len(chosen.shape) != 0 or reader.outputs[0].is_graph_output():
            return None
        found.append((reader, int(chosen.numpy()), perm))
    return found


def _part(tensor: ir.TensorProtocol, number: int, perm: tuple[int, int], name: str) -> ir.LazyTensor:
    sizes = [int(size) for size in tensor.shape.numpy()[1:]]

    def cut() -> np.ndarray:
        part = tensor.numpy()[number]
        return np.transpose(part, perm) if part.ndim == 2 else part

    return lazy(cut, tensor.dtype, [sizes[axis] for axis in perm] if len(sizes) == 2 else sizes, name)
