"""A program run over many feeds in step: all of them up to one node, then all of them up to the next.

So a layer's weights can be refitted to what it is really given, and the layers after it are given what the
refitted ones make of it, in one run over the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.fx import Interpreter, Node

from ...ir.program import Program
from ..manager.contract import Feed
from .outputs import arguments


class Lockstep:
    """A position in a graph, and what is alive there for every feed.

    Parameters are read by the nodes that use them, when the position comes to these.

    Args:
        program: fx, in evaluation mode.
        feeds: as many runs.
        keep: nodes whose values are asked for after the position has passed their last user.
    """

    def __init__(self, program: Program, feeds: Sequence[Feed], keep: Iterable[Node] = ()) -> None:
        self._graph = program.graph
        self._nodes = [node for node in program.graph.graph.nodes if node.op != "get_attr"]
        self._last = {operand: node for node in self._nodes for operand in node.all_input_nodes}
        self._kept = set(keep)
        self._dead: dict[Node, list[Node]] = {}
        for operand, node in self._last.items():
            self._dead.setdefault(node, []).append(operand)
        self._runs = [Interpreter(self._graph, garbage_collect_values=False) for _ in feeds]
        for run, feed in zip(self._runs, feeds, strict=True):
            run.args_iter = iter(arguments(program, feed))
        self._place = 0
        self._done: set[Node] = set()

    def fork(self, count: int) -> Lockstep:
        """Another one at the same position, of the first `count` feeds; what either does, the other does not
        see."""
        twin = object.__new__(Lockstep)
        twin.__dict__.update(self.__dict__)
        twin._runs, twin._done, twin._kept = [], set(self._done), set(self._kept)
        for run in self._runs[:count]:
            twin._runs.append(Interpreter(self._graph, garbage_collect_values=False))
            twin._runs[-1].env = dict(run.env)
        return twin

    def reached(self, node: Node) -> None:
        """Goes on until a node's value is known."""
        while not self._runs or node not in self._runs[0].env:
            self._step(self._nodes[self._place])
            self._done.add(self._nodes[self._place])
            self._place += 1

    def outputs(self) -> list[list[torch.Tensor]]:
        """Goes on to the end: the outputs of each feed."""
        end = self._nodes[-1]
        self.reached(end)
        return [torch.utils._pytree.tree_leaves(run.env[end]) for run in self._runs]

    def value(self, node: Node, number: int) -> Any:
        """What a node gave for a feed."""
        return self._runs[number].env[node]

    def put(self, node: Node, number: int, value: Any) -> None:
        """Makes a node that was reached have given something else for a feed: what follows reads that."""
        self._runs[number].env[node] = value

    def let_go(self, *nodes: Node) -> None:
        """Of values that were kept: now, or when their last user has run."""
        for node in nodes:
            self._kept.discard(node)
            if self._last.get(node) in self._done:
                for run in self._runs:
                    run.env.pop(node, None)

    @torch.no_grad()
    def _step(self, node: Node) -> None:
        parameters = [operand for operand in node.all_input_nodes if operand.op == "get_attr"]
        for run in self._runs:
            for parameter in parameters:
                run.env[parameter] = run.run_node(parameter)
            run.env[node] = run.run_node(node)
            for operand in self._dead.get(node, ()):
                if operand not in self._kept:
                    run.env.pop(operand, None)
