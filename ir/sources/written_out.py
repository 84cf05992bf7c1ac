"""ONNX Runtime's fused operators, as its transformer optimizer and its saved sessions leave them, written
out in ONNX's own: one spelling is recognised, quantized, pruned and lowered, and fused again where it pays.

What has no rule here stays as it is. Source: docs/ContribOperators.md of ONNX Runtime, and its CPU kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..onnx.graph import OnnxView

Result = Sequence[ir.Value | None] | None
"""What stands for a node's results, None for one that is not computed; nothing where a rule does not fit."""


class Written:
    """Writes operators in front of a node, which stays until its results are replaced.

    made: what was written, in order.
    """

    def __init__(self, node: ir.Node, view: OnnxView) -> None:
        self.node = node
        self._view = view
        self.made: list[ir.Node] = []

    def input(self, index: int) -> ir.Value | None:
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def needed(self, index: int) -> ir.Value:
        value = self.input(index)
        if value is None:
            raise ValueError(f"{self.node.op_type} without its input {index}")
        return value

    def attr(self, name: str, default: Any) -> Any:
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def rank(self, value: ir.Value | None) -> int | None:
        """How many axes a value has, where that follows."""
        if value is None:
            return None
        shape = value.shape
        if shape is None and value in self._view:
            found = self._view.of(value).shape
            return None if found is None else len(found)
        return None if shape is None else len(shape)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """A value's type, where that follows."""
        if value.dtype is not None or value not in self._view:
            return value.dtype
        name = self._view.of(value).dtype
        return None if name in (None, "string") else ir.DataType.from_numpy(np.dtype(str(name)))

    def used(self, index: int) -> bool:
        results = self.node.outputs
        return index < len(results) and bool(results[index].uses() or results[index].is_graph_output())

    def __call__(self, op: str, *inputs: ir.Value | None, results: int = 1, **attrs: Any) -> ir.Value:
        return self.all(op, *inputs, results=results, **attrs)[0]

    def all(self, op: str, *inputs: ir.Value | None, results: int = 1, **attrs: Any) -> Sequence[ir.Value]:
        name = f"{self.node.outputs[0].name}.{op.lower()}{len(self.made)}"
        made = ir.node(op, inputs, attrs, num_outputs=results, name=name)
        for index, result in enumerate(made.outputs):
            result.name = name if index == 0 else f"{name}.{index}"
        self.made.append(made)
        return made.outputs

    def const(self, data: Any, dtype: Any = np.int64) -> ir.Value:
        array = np.asarray(data, dtype)
        return self("Constant", value=ir.Tensor(array))

    def like(self, number: float, value: ir.Value) -> ir.Value:
        """A number of another value's type; float32 where that is unknown."""
        if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE):
            return self.const(number, value.dtype.numpy())
        return self.const(number, np.float32)


Rule = Callable[[Written], Result]


def write_out(model: ir.Model, rules: Mapping[str, Rule]) -> int:
    """Replaces every node that a rule fits, in place; returns how many.

    Args:
        rules: what writes an operator out, by "domain::operator", or its name alone in ONNX's domain.
    """
    if not any(_key(node) in rules for node in ir.traversal.RecursiveGraphIterator(model.graph)):
        return 0
    count, view = 0, OnnxView(model)
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        rule = rules.get(_key(node))
        if rule is None or node.graph is None:
            continue
        write = Written(node, view)
        found = rule(write)
        if found is None or any(
            write.used(i) and (i >= len(found) or found[i] is None) for i in range(len(node.outputs))
        ):
            continue
        graph = node.graph
        graph.insert_before(node, write.made)
        for old, new in zip(node.outputs, found, strict=False):
            if new is not None:
                _replace(graph, node, old, new)
        graph.remove(node, safe=True)
        count += 1
    return count


def _key(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _replace(graph: Any, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    name, dtype, shape = old.name, old.dtype, old.shape
    maker = new.producer()
    if maker is None or new.is_graph_output() or maker.graph is not graph:
        copy = ir.node("Identity", [new])
        graph.insert_before(node, copy)
        new = copy.outputs[0]
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = f"{name}.fused"
    new.name = name
    if dtype is not None and new.dtype is None:
        new.dtype = dtype
    if new.shape is None:
        new.shape = shape
