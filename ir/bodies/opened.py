"""Bodies: the graphs inside of If, Loop and Scan, opened as programs of their own, and put back.

A pass that rewrites a program then rewrites a body without knowing it. What a body takes from the graph
around it becomes an input or, where it is constant, a weight of the same name; so a weight that two branches
share has one name in both, and what a pass makes of it is stored once if it is the same.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from ..errors import GraphwrightError
from ..onnx.graph import Editor, OnnxView, subgraphs, taken_in
from ..onnx.opset import cannot_raise, opset, raise_opset
from ..program import Program
from ..spec import UNBOUNDED, InputSpec, numpy_dtype


@dataclass(frozen=True, eq=False)
class Body:
    """A body of a node of a program's main graph.

    attribute: of the node, that holds it. program: a copy; its first inputs are the body's own (`formal`
    many: a loop's turn, condition and state), the others stand for `captured`, values of the graph around it.
    """

    node: ir.Node
    attribute: str
    program: Program
    formal: int
    captured: tuple[ir.Value, ...]

    def __str__(self) -> str:
        name = self.node.name or self.node.outputs[0].name
        return f"the {self.attribute} of {self.node.op_type} '{name}'"


def bodies(program: Program) -> list[Body]:
    """The bodies of a program's main graph, in order; those inside of them are in their programs. One of
    which a type is not known, or that gives out a value of the graph around it, is left closed."""
    if program.dialect != "onnx":
        return []
    held = [
        (node, name, attribute.value)
        for node in program.graph.graph
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    ]
    around = OnnxView(program.graph) if held else None
    opened = [_open(program, around, *each) for each in held if around is not None]
    return [body for body in opened if body is not None]


def _open(program: Program, around: OnnxView, node: ir.Node, attribute: str, graph: ir.Graph) -> Body | None:
    outer = list(taken_in([graph]))
    if not set(graph.outputs).isdisjoint(outer):
        return None
    inner = graph.clone(allow_outer_scope_values=True)
    formal = len(inner.inputs)
    twins: dict[ir.Value, ir.Value] = {}
    captured = []
    for value in outer:
        tensor = None if value.is_graph_input() else ir.convenience.get_const_tensor(value)
        twin = twins[value] = ir.Value(name=value.name, shape=value.shape, type=copy(value.type))
        if tensor is not None:
            twin.const_value, twin.dtype = tensor, tensor.dtype
            twin.shape = ir.Shape(tensor.shape.numpy())
            inner.register_initializer(twin)
        else:
            seen = around.of(value) if value in around else None
            if seen is not None and seen.dtype is not None:
                twin.dtype = ir.DataType.from_numpy(numpy_dtype(seen.dtype))
            if seen is not None and seen.shape is not None:
                twin.shape = ir.Shape(seen.shape)
            inner.inputs.append(twin)
            captured.append(value)
    for each in ir.traversal.RecursiveGraphIterator(inner):
        for position, read in enumerate(each.inputs):
            if read in twins:
                each.replace_input_with(position, twins[read])
    if any(value.dtype is None or not value.name for value in inner.inputs):
        return None
    inner.opset_imports.update(program.graph.graph.opset_imports)
    known = {spec.name: spec for spec in program.inputs}
    specs = tuple(
        known[str(outside.name)] if outside.is_graph_input() and outside.name in known else _spec(value)
        for value, outside in zip(inner.inputs, [*inner.inputs[:formal], *captured], strict=True)
    )
    free = [dim for spec in specs for dim in spec.shape if isinstance(dim, str)]
    inside = replace(
        program,
        graph=ir.Model(inner, ir_version=program.graph.ir_version),
        inputs=specs,
        outputs=tuple(str(value.name) for value in inner.outputs),
        symbols={symbol: program.symbols.get(symbol, (1, UNBOUNDED)) for symbol in free},
        feeds=(),
    )
    return Body(node, attribute, inside.clone(), formal, tuple(captured))


def _spec(value: ir.Value) -> InputSpec:
    assert value.dtype is not None
    shape = (
        dim if isinstance(dim, int) else dim.value or f"{value.name}_{axis}"
        for axis, dim in enumerate(value.shape or ())
    )
    return InputSpec(str(value.name), value.dtype.numpy().name, tuple(shape))


def put_back(program: Program, body: Body, rewritten: Program) -> None:
    """Gives a node its body, rewritten, in place.

    Args:
        program: whose main graph the body was opened in.
        rewritten: the body's program, with the inputs and outputs that it had.

    Raises:
        GraphwrightError: it is in an opset that the rest of the model can't be read as; nothing was changed.
    """
    version = opset(rewritten.graph)
    stuck = cannot_raise(program.graph, version)
    if stuck is not None:
        raise GraphwrightError(stuck)
    raise_opset(program.graph, version)
    main, graph = program.graph.graph, rewritten.graph.graph
    _discard(body.node.attributes.pop(body.attribute).value)
    editor, inside = Editor(program.graph), Editor(rewritten.graph)
    given = {*graph.inputs, *graph.initializers.values()}
    for place, value in enumerate(graph.outputs):
        if value in given:  # a body gives out what it makes
            copied = inside.node("Identity", [value], f"{value.name}.copy", like=value)
            graph.outputs[place] = copied.outputs[0]
    for value, outside in zip(list(graph.inputs)[body.formal :], body.captured, strict=True):
        value.replace_all_uses_with(outside)
    del graph.inputs[body.formal :]
    for name, value in list(graph.initializers.items()):
        del graph.initializers[name]
        same = main.initializers.get(name)
        if same is None or not _equal(same.const_value, value.const_value):
            same = editor.initializer(value.const_value, name)
        value.replace_all_uses_with(same)
    _rename(graph, editor)
    for domain, version in graph.opset_imports.items():
        main.opset_imports.setdefault(domain, version)
    body.node.attributes[body.attribute] = ir.AttrGraph(body.attribute, graph)


def _rename(graph: ir.Graph, editor: Editor) -> None:
    """Names that nothing else in the model has: a body sees the values around it."""
    values = [*graph.inputs]
    for node in ir.traversal.RecursiveGraphIterator(graph):
        values += [value for value in node.outputs if value.name]
        values += [value for inner in subgraphs(node) for value in inner.inputs]
    for value in values:
        value.name = editor.name(str(value.name))


def _discard(graph: ir.Graph) -> None:
    """Takes a graph apart, so that nothing in it uses values outside of it."""
    graph.outputs.clear()
    for node in reversed(list(graph)):
        for inner in subgraphs(node):
            _discard(inner)
        graph.remove(node, safe=True)


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(a.tobytes() == b.tobytes())
