"""The view over an onnx_ir graph, and what a pass needs to rewrite one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import onnx_ir as ir

from ..ops.shapes import infer, infer_dtype
from ..ops.symbolic import Shape, merge
from ..values import Dim, GraphValue, GraphView
from . import shape_arithmetic as arithmetic
from .operators import Call, canonical, dtype_name


class OnnxView(GraphView):
    """The values of an onnx_ir.Model's main graph.

    Initializers and the results of Constant nodes are "const". Subgraphs (If, Loop, Scan) are not entered
    (ir/bodies.py opens them), but what they take from outside counts among their node's inputs. Shape
    arithmetic is folded into the attributes it feeds.
    """

    dialect = "onnx"

    def __init__(self, model: ir.Model) -> None:
        super().__init__()
        self._opset = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1))
        self._sizes: dict[ir.Value, tuple[Dim, ...]] = {}
        initializers = set(model.graph.initializers.values())
        self._symbols = {d for v in model.graph.inputs for d in _shape(v) or () if isinstance(d, str)}
        for value in model.graph.inputs:
            if value not in initializers:
                self.inputs.append(
                    self.add(
                        GraphValue(
                            value,
                            value.name or "",
                            "input",
                            shape=_shape(value),
                            dtype=dtype_name(value.dtype),
                        )
                    )
                )
        for value in model.graph.initializers.values():
            self._constant(value)
        for node in model.graph:
            self._visit(node)
        self.outputs = [self.of(value) for value in model.graph.outputs]

    def sizes(self, native: ir.Value) -> tuple[Dim, ...] | None:
        """What a value holds, if it is a size or a list of sizes known before the call; None otherwise."""
        return self._sizes.get(native)

    def _constant(self, native: ir.Value) -> None:
        tensor = ir.convenience.get_const_tensor(native)
        value = GraphValue(native, native.name or "", "const", tensor=tensor)
        if tensor is not None:
            value.load = tensor.numpy
            value.shape, value.dtype = tuple(tensor.shape.numpy()), dtype_name(tensor.dtype)
            found = arithmetic.constant(tensor)
            if found is not None:
                self._sizes[native] = found
        self.add(value)

    def _visit(self, node: ir.Node) -> None:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            self._constant(node.outputs[0])
            return
        operands = [None if v is None else self.of(v) for v in node.inputs]
        while operands and operands[-1] is None:
            operands.pop()
        known = [None if v is None else self._sizes.get(v) for v in node.inputs]
        given = [_shape(result) for result in node.outputs]
        if node.op_type in arithmetic.SHAPING:
            given[0] = merge(given[0], arithmetic.target(node, operands, known), self._symbols)
        op, inputs, attrs = canonical(Call(node, operands, known, self._opset, given))
        inputs = [*inputs, *(self.of(v) for v in outer_values(node) if v in self)]
        for index, result in enumerate(node.outputs):
            if not result.name:
                continue
            shape = merge(given[index], infer(op, inputs, attrs, index), self._symbols)
            dtype = dtype_name(result.dtype) or infer_dtype(op, inputs, attrs)
            self.add(GraphValue(result, result.name, op, inputs, attrs, index, shape, dtype))
        folded = arithmetic.fold(node, operands, known)
        if folded is not None:
            self._sizes[node.outputs[0]] = folded


def _shape(value: ir.Value) -> Shape | None:
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def clone(model: ir.Model) -> ir.Model:
    """A model to edit without touching this one; tensors are shared.

    onnx_ir's own clone shares type objects, and writing `value.dtype` writes into them.
    """
    twin = model.clone()
    for graph in twin.graphs():
        values = [*graph.inputs, *graph.initializers.values()]
        for value in (*values, *(result for node in graph for result in node.outputs)):
            if value.type is not None:
                value.type = copy(value.type)
    return twin


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among a node's attributes."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.value
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.value


def outer_values(node: ir.Node) -> Iterator[ir.Value]:
    """What a node's subgraphs, at any depth, use of values not made in them; once each, in order."""
    return taken_in(subgraphs(node))


def taken_in(graphs: Iterable[ir.Graph]) -> Iterator[ir.Value]:
    """What graphs, and those inside of them, use of values not made in them; once each, in order."""
    used: dict[ir.Value, None] = {}
    made: set[ir.Value] = set()
    stack = list(graphs)
    while stack:
        graph = stack.pop()
        made.update(graph.inputs, graph.initializers.values())
        used.update(dict.fromkeys(graph.outputs))
        for inner in graph:
            made.update(inner.outputs)
            used.update(dict.fromkeys(v for v in inner.inputs if v is not None))
            stack.extend(subgraphs(inner))
    return (value for value in used if value not in made)


class Editor:
    """Rewrites of one graph. New names derive from those asked for, so one input gives one output.

    Args:
        model: edited in place.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        self._names = {v.name for v in model.graph.inputs} | set(model.graph.initializers)
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            self._names.add(node.name)
            self._names.update(result.name for result in node.outputs)
            for inner in subgraphs(node):
                self._names.update(v.name for v in (*inner.inputs, *inner.initializers.values()))
        self._suffix: dict[str, int] = {}
        self._replaced: dict[ir.Value, ir.Value] = {}

    def current(self, value: ir.Value) -> ir.Value:
        """What stands for a value now: itself, or what it was replaced by. A view taken before the first
        rewrite knows only what was there then."""
        while value in self._replaced:
            value = self._replaced[value]
        return value

    def name(self, wanted: str) -> str:
        """A name that nothing in the graph has: `wanted`, or with a number after it."""
        name = wanted
        while name in self._names:
            self._suffix[wanted] = self._suffix.get(wanted, 0) + 1
            name = f"{wanted}_{self._suffix[wanted]}"
        self._names.add(name)
        return name

    def initializer(self, data: np.ndarray | ir.TensorProtocol, name: str) -> ir.Value:
        """A new constant. A lazy or external tensor stays unread; an array is shared, not copied."""
        name = self.name(name)
        tensor: Any = ir.Tensor(data, name=name) if isinstance(data, np.ndarray) else data
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
        attrs: Mapping[str, Any] | None = None,
        domain: str = "",
        results: int = 1,
        like: ir.Value | None = None,
    ) -> ir.Node:
        """A new node, before or after another, at the end without either.

        Args:
            name: of the node and, with a number after it from the second on, of its results.
            domain: imported into the model at version 1 if it is not yet.
            like: a value whose type and shape the first result has.
        """
        name = self.name(name)
        node = ir.node(
            op_type, inputs, dict(attrs or {}), domain=domain, num_outputs=results, name=name
        )  # fmt: skip
        for index, result in enumerate(node.outputs):
            result.name = name if index == 0 else self.name(f"{name}.{index}")
        if like is not None:
            node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        if before is not None:
            self.graph.insert_before(before, node)
        elif after is not None:
            self.graph.insert_after(after, node)
        else:
            self.graph.append(node)
        return node

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let every user of `old`, subgraphs and graph outputs included, take `new`. Outputs keep names."""
        if new.type is None:
            new.type = old.type
        if new.shape is None:
            new.shape = old.shape
        self._replaced[old] = new
        if not old.is_graph_output():
            old.replace_all_uses_with(new)
            return
        if new.is_graph_output() or new.producer() is None:
            producer = new.producer()
            for node, position in old.uses():
                node.replace_input_with(position, new)
            first = None if producer is not None or not len(self.graph) else self.graph[0]
            new = self.node(
                "Identity", [new], f"{old.name}.copy", before=first, after=producer, like=old
            ).outputs[0]
        name = old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = self.name(f"{name}.replaced")
        new.name = name

    def prune(self) -> int:
        """Removes nodes and initializers that no output needs; returns how many."""
        count = prune(self.graph)
        for name in [n for n, v in self.graph.initializers.items() if _idle(v)]:
            del self.graph.initializers[name]
            count += 1
        return count


def prune(graph: ir.Graph) -> int:
    """Removes the nodes of a graph, and of its subgraphs, whose results nobody uses."""
    count = 0
    for node in reversed(graph):
        if all(_idle(result) for result in node.outputs):
            graph.remove(node, safe=True)
            count += 1
        else:
            count += sum(prune(inner) for inner in subgraphs(node))
    return count


def _idle(value: ir.Value) -> bool:
    return not (value.uses() or value.is_graph_output() or value.is_graph_input())
