"""eliminate-dead-code: remove what no output needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """Remove nodes and weights that no output depends on.

            a = Add(x, w); b = Mul(a, v); y = Relu(a)
        ->  a = Add(x, w); y = Relu(a)

    An ONNX node with a subgraph is kept or removed as a whole, after the nodes inside it. Graph inputs stay,
    used or not: they are the model's interface. Random and in-place ATen operators are kept.
    """

    name: ClassVar[str] = "eliminate-dead-code"
    source: ClassVar = None
    target: ClassVar = None
    effect: ClassVar = Exact(1e-6)

    def run(self, program: Program, context: Context) -> Result:
        remove = _from_onnx if program.dialect == "onnx" else _from_fx
        nodes, weights = remove(program.graph, context)
        return Result(program, nodes + weights > 0, {"nodes removed": nodes, "weights removed": weights})


def _from_onnx(model: Any, context: Context) -> tuple[int, int]:
    nodes = weights = 0
    for graph in reversed(list(model.graphs())):  # subgraphs first: what they use, their graph must keep
        for node in reversed(graph):
            if not any(_used(v) for v in node.outputs) and context.allow(
                f"remove {node.op_type} {node.outputs[0].name}"
            ):
                graph.remove(node, safe=True)
                nodes += 1
        for name, value in list(graph.initializers.items()):
            if not _used(value) and not value.is_graph_input() and context.allow(f"remove weight {name}"):
                del graph.initializers[name]
                weights += 1
    return nodes, weights


def _used(value: Any) -> bool:
    return value.is_graph_output() or bool(value.uses())


def _from_fx(module: Any, context: Context) -> tuple[int, int]:
    nodes = weights = 0
    for node in reversed(module.graph.nodes):
        kept = node.users or node.op in ("placeholder", "output") or node.is_impure()
        if not kept and context.allow(f"remove node {node.name}"):
            weights += node.op == "get_attr"
            nodes += node.op != "get_attr"
            module.graph.erase_node(node)
    module.recompile()
    return nodes, weights
