"""What an ONNX graph must be before anything is made of it: connected, without cycles, and ending."""

from __future__ import annotations

from collections.abc import Set
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir

from ..errors import CaptureError
from ..onnx.graph import outer_values, subgraphs
from ..onnx.opset import ONNX

TURNS = 1_000_000  # of all loops around a node together, as far as the file says how often they turn
MOST = 2**26  # numbers of one input, as far as its sizes are fixed: probes are drawn several at a time
_LAYOUT = "com.microsoft.nchwc"


def check_graph(model: ir.Model, path: Path) -> None:
    """Every value that a node reads is an input, a weight or another node's result; loops end.

    Raises:
        CaptureError: names the value, the node or the loop.
    """
    weights = set(model.graph.initializers.values())
    if all(value in weights for value in model.graph.inputs):
        raise CaptureError(f"'{path}' takes no inputs: whatever it computes is a constant.")
    for value in model.graph.inputs:
        if value not in weights:
            _check_input(value, path)
    _sort(model.graph, path)
    _connected(model.graph, set(), path)
    _ends(model.graph, 1, path)


def check_operators(model: ir.Model, path: Path) -> None:
    """Every operator of ONNX's own domain exists, and none is of a layout made for one processor.

    Raises:
        CaptureError: names the operator.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain in ONNX and not onnx.defs.has(node.op_type):
            raise CaptureError(f"'{path}' is no valid model: ONNX has no operator {node.op_type}.")
        if node.op_type == "Dropout" and node.domain in ONNX and _drops(node):
            raise CaptureError(
                f"'{path}' was exported in training: {_named(node)} drops other values at each call; "
                "export it in evaluation mode."
            )
        if node.domain == _LAYOUT:
            raise CaptureError(
                f"'{path}' holds {node.op_type} of {_LAYOUT}, which ONNX Runtime made for one processor at "
                "level all: save it at its extended level, or take the file that it came from."
            )


def _drops(node: ir.Node) -> bool:
    """Whether a Dropout is in training mode, by a constant, at a rate that is not 0."""
    given = [*node.inputs[1:3], None, None]
    rate = ir.convenience.get_const_tensor(given[0]) if given[0] is not None else None
    return _number(given[1]) == 1 and not (rate is not None and float(rate.numpy()) == 0)


def _check_input(value: ir.Value, path: Path) -> None:
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        raise CaptureError(f"'{path}' takes '{value.name}', which is no tensor: only tensors are taken.")
    if value.dtype is None or value.dtype == ir.DataType.UNDEFINED or value.shape is None:
        raise CaptureError(f"'{path}' does not say the type and shape of its input '{value.name}'.")
    if value.dtype == ir.DataType.STRING:
        raise CaptureError(f"'{path}' takes text in '{value.name}': only numbers are taken, tokenize before.")
    if any(isinstance(size, int) and size < 0 for size in value.shape):
        raise CaptureError(f"'{path}' is broken: its input '{value.name}' has a negative size.")
    fixed = [size for size in value.shape if isinstance(size, int)]
    if prod(fixed) > MOST:
        raise CaptureError(
            f"'{path}' takes {prod(fixed):,} numbers and more in '{value.name}'; at most {MOST:,} are taken."
        )


def _sort(graph: ir.Graph, path: Path) -> None:
    """Nodes in an order in which they can be computed, subgraphs' too."""
    for node in graph:
        for inner in subgraphs(node):
            _sort(inner, path)
    sorter: TopologicalSorter[ir.Node] = TopologicalSorter()
    for node in graph:
        read = [*(value for value in node.inputs if value is not None), *outer_values(node)]
        makers = (value.producer() for value in read)
        sorter.add(node, *(maker for maker in makers if maker is not None and maker.graph is graph))
    try:
        sorter.prepare()
    except CycleError as error:
        first, second = error.args[1][:2]
        raise CaptureError(
            f"'{path}' is no valid model: its nodes form a cycle, with {_named(first)} and {_named(second)}."
        ) from error
    graph.sort()


def _connected(graph: ir.Graph, outside: Set[ir.Value], path: Path) -> None:
    known = {*outside, *graph.inputs, *graph.initializers.values()}
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in known:
                raise CaptureError(f"'{path}' is no valid model: nothing produces '{value.name}'.")
        for inner in subgraphs(node):
            _connected(inner, known, path)
        known.update(node.outputs)
    for value in graph.outputs:
        if value not in known:
            raise CaptureError(f"'{path}' is no valid model: nothing produces its output '{value.name}'.")


def _ends(graph: ir.Graph, turns: int, path: Path) -> None:
    """No loop that the file says turns for ever, or that often that nobody waits for it."""
    for node in graph:
        around = turns
        if node.op_type == "Loop" and node.domain in ONNX:
            around = turns * _turns(node, path)
        if around > TURNS:
            raise CaptureError(
                f"'{path}' has a loop, {_named(node)}, that turns {around:,} times; at most {TURNS:,} do."
            )
        for inner in subgraphs(node):
            _ends(inner, around, path)


def _turns(node: ir.Node, path: Path) -> int:
    """How often a loop turns as far as constants say, 1 where the call decides."""
    (body,) = subgraphs(node)
    limit, start = (_number(node.inputs[i] if i < len(node.inputs) else None) for i in range(2))
    again = body.outputs[0] if body.outputs else None
    if start == 0:
        return 1
    for _ in range(len(body) + 1):  # through what only carries it along
        maker = None if again is None else again.producer()
        if maker is None or maker.op_type != "Identity" or maker.graph is not body:
            break
        again = maker.inputs[0]
    kept = len(body.inputs) > 1 and again is body.inputs[1]
    given = node.inputs[1] if len(node.inputs) > 1 else None
    goes_on = (kept and (given is None or start == 1)) or _number(again) == 1
    if goes_on and (not node.inputs or node.inputs[0] is None):
        raise CaptureError(f"'{path}' has a loop, {_named(node)}, that never ends.")
    return max(limit or 1, 1) if goes_on else 1


def _number(value: ir.Value | None) -> int | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if (
        tensor is None
        or tensor.size != 1
        or not (tensor.dtype.is_integer() or tensor.dtype == ir.DataType.BOOL)
    ):
        return None
    return int(tensor.numpy().reshape(-1)[0])


def _named(node: ir.Node) -> str:
    return f"{node.op_type} ({node.name or node.outputs[0].name})"
