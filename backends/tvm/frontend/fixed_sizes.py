"""An FX graph at one set of sizes: what does not depend on what the inputs hold becomes a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from ....ir.fx.graph import add_tensor, clone, prune

_ATEN = torch.ops.aten
# Give a number that is no size: what a tensor holds.
_READS = {_ATEN.item.default, _ATEN._local_scalar_dense.default}
# Take a tensor for its shape alone.
_SHAPED = {
    _ATEN.zeros_like.default, _ATEN.ones_like.default, _ATEN.full_like.default,
    _ATEN.new_zeros.default, _ATEN.new_ones.default, _ATEN.new_full.default,
}  # fmt: skip


def fixed_sizes(graph: GraphModule, inputs: Sequence[torch.Tensor]) -> GraphModule:
    """A clone whose sizes are those of the inputs.

    Sizes are numbers in it, and what is computed from sizes and weights alone (positions, the causal half of
    a mask, weights stored as codes) is a constant. Expanded constants stay as they are stored. Constant
    indices count from the start: TVM takes those that count from the end (Falcon's keys) for others.

    Args:
        inputs: of the wanted sizes, in the graph's order; what they hold is of no consequence.
    """
    graph = clone(graph)
    run = _Run(graph)
    with torch.no_grad():
        run.run(*inputs)
    _count_from_the_start(graph, run)
    computed: set[Node] = set()  # at every call
    for node in reversed(graph.graph.nodes):
        if node not in run.known:
            computed.add(node)
        elif node.op != "get_attr" and not computed.isdisjoint(node.users):
            if node.target is _ATEN.expand.default:
                computed.add(node)
            else:
                _put(graph, node, run.known[node])
    prune(graph)
    return graph


class _Run(Interpreter):
    """Runs a graph, and keeps what is known without its inputs."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.known: dict[Node, Any] = {}
        self.looked_up: dict[Node, torch.Size] = {}  # what is indexed by tensors, by the operator

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.target is _ATEN.index.Tensor:
            source: Any = self.fetch_args_kwargs_from_env(n)[0][0]
            self.looked_up[n] = source.shape
        constant = n.op == "get_attr" or (
            n.op == "call_function"
            and (n.target in _SHAPED or all(operand in self.known for operand in n.all_input_nodes))
        )
        size = isinstance(result, int) and n.target not in _READS
        if n.op != "output" and (constant or size):
            self.known[n] = result
        return result


def _count_from_the_start(graph: GraphModule, run: _Run) -> None:
    for node, shape in run.looked_up.items():
        table, given = node.args
        assert isinstance(given, list | tuple)
        indices = list(given)
        for axis, index in enumerate(indices):
            value = run.known.get(index) if isinstance(index, Node) else None
            if isinstance(value, torch.Tensor) and value.dtype != torch.bool and (value < 0).any():
                positive = torch.where(value < 0, value + shape[axis], value)
                indices[axis] = add_tensor(graph, f"{node.name}_indices", positive, node)
        node.args = (table, indices)


def _put(graph: GraphModule, node: Node, value: Any) -> None:
    """Gives the users of a node its value."""
    if isinstance(value, torch.Tensor):
        name = f"constant_{node.name}"
        node.replace_all_uses_with(add_tensor(graph, name, value.detach().contiguous(), node))
        return
    for user in list(node.users):
        user.args = torch.fx.map_arg(user.args, lambda n: value if n is node else n)
        user.kwargs = torch.fx.map_arg(user.kwargs, lambda n: value if n is node else n)
