"""A graph with the bodies of If, Loop and Scan written into it, to be looked at as a whole.

Both branches of an If stand side by side and a loop's body stands there once, as its first turn: enough to
see what inputs are for, how long they may be and what blocks there are. It computes something else, and is
never run or rewritten.
"""

from __future__ import annotations

import onnx_ir as ir

from .graph import Editor, clone, subgraphs

DOMAIN = "graphwright"
"""Of operators that stand where bodies end and loops begin: nothing is known of them but a shape."""


def flattened(model: ir.Model) -> ir.Model:
    """The model itself where no node has a body; else a copy without any."""
    if not any(True for node in model.graph for _ in subgraphs(node)):
        return model
    flat = clone(model)
    editor = Editor(flat)
    while True:
        node = next((node for node in flat.graph if any(True for _ in subgraphs(node))), None)
        if node is None:
            return flat
        _flatten(editor, node)


def _flatten(editor: Editor, node: ir.Node) -> None:
    ends: list[list[ir.Value | None]] = []
    for graph in list(subgraphs(node)):
        _begin(editor, node, graph)
        ends.append(_moved(editor, node, graph))
    if node.op_type == "Loop":  # it gives out no condition
        ends = [found[1:] for found in ends]
    for place, result in enumerate(node.outputs):
        inputs = [found[place] for found in ends if place < len(found)]
        end = ir.node(node.op_type, inputs, domain=DOMAIN, name=editor.name(f"{result.name}.{node.op_type}"))
        end.outputs[0].name = editor.name(f"{result.name}.flat")
        end.outputs[0].shape, end.outputs[0].type = result.shape, result.type
        editor.graph.insert_before(node, end)
        editor.replace(result, end.outputs[0])
    node.attributes.clear()
    editor.graph.remove(node, safe=True)


def _begin(editor: Editor, node: ir.Node, graph: ir.Graph) -> None:
    """What a body's own inputs are in its first turn: a loop's state is what it is given, its turn and the
    slices of a Scan are unknown."""
    state = list(node.inputs)[2:] if node.op_type == "Loop" else list(node.inputs)
    own = list(graph.inputs)
    scanned = node.attributes.get_int("num_scan_inputs", 0) if node.op_type == "Scan" else 0
    for place, value in enumerate(own):
        number = place - 2 if node.op_type == "Loop" else place
        given = state[number] if 0 <= number < len(state) - scanned else None
        if given is None:
            given = editor.node("Begin", [], f"{value.name}.begin", before=node, like=value).outputs[0]
            made = given.producer()
            assert made is not None
            made.domain = DOMAIN
        value.replace_all_uses_with(given, replace_graph_outputs=True)
    graph.inputs.clear()


def _moved(editor: Editor, node: ir.Node, graph: ir.Graph) -> list[ir.Value | None]:
    """Moves a body's nodes and weights in front of its node; returns what it gives out."""
    outputs = list(graph.outputs)
    graph.outputs.clear()
    for name, value in list(graph.initializers.items()):
        del graph.initializers[name]
        value.name = editor.name(f"{name}.inner")
        editor.graph.register_initializer(value)
    inside = list(graph)
    graph.remove(inside)
    for each in inside:
        for result in each.outputs:
            if result.name:
                result.name = editor.name(f"{result.name}.inner")
        editor.graph.insert_before(node, each)
    return list(outputs)
