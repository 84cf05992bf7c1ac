"""A program run over texts, and what its nodes give at real tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy

import torch
from torch.fx import Node

from ....ir.blocks.walk import bare
from ....ir.evaluated import evaluated
from ....ir.program import Program
from ....ir.values import Value
from ...common.lockstep import Lockstep
from ...common.outputs import rows
from ...manager.contract import Feed
from .sites import Site
from .weights import Given

Rows = list[torch.Tensor]  # (rows, features) of each feed


class Run:
    """Nodes are asked for in the order of the graph, and found by their names: a clone's will do.

    Args:
        program: fx. asked: of its nodes, those that are.
    """

    def __init__(self, program: Program, feeds: Sequence[Feed], asked: Iterable[Node]) -> None:
        self.live, self._feeds = evaluated(program), feeds
        self._nodes = {node.name: node for node in self.live.graph.graph.nodes}
        self._run = Lockstep(self.live, feeds, [self._nodes[node.name] for node in asked])

    def rows(self, node: Node, count: int | None = None) -> Rows:
        """What a node gives at real tokens; whatever comes before it has run then.

        Args:
            count: of the feeds, the first; None: all.
        """
        mine = self._nodes[node.name]
        self._run.reached(mine)
        some = enumerate(self._feeds[:count])
        return [rows(self.live, feed, self._run.value(mine, place)) for place, feed in some]

    def fork(self, count: int) -> Run:
        """Another run from here on, of the first feeds alone."""
        inputs = [node for node in self.live.graph.graph.nodes if node.op == "placeholder"]
        self._run.reached(inputs[-1])  # a run is handed its inputs once
        twin = copy(self)
        twin._feeds, twin._run = self._feeds[:count], self._run.fork(count)
        return twin

    def give(self, node: Node | None, other: Run, like: Node) -> None:
        """Makes a node have given what one of another run gave."""
        assert node is not None
        mine, theirs = self._nodes[node.name], other._nodes[like.name]
        self._run.reached(mine)
        for place in range(len(self._feeds)):
            self._run.put(mine, place, other._run.value(theirs, place))

    def let_go(self, nodes: Iterable[Node]) -> None:
        """Of what is not asked for again."""
        self._run.let_go(*(self._nodes[node.name] for node in nodes))

    def outputs(self) -> list[list[torch.Tensor]]:
        return self._run.outputs()


def read(site: Site) -> list[Node]:
    """What a fit asks of the original, in the order of the graph."""
    values: list[Value] = [bare(site.entry), site.wide, site.sums[0], site.middle.root]
    values += [site.feed_forward.down.input, site.sums[1]]
    return [value.native for value in values]


def given(
    program: Program, found: Sequence[Site], feeds: Sequence[Feed], progress: Callable[[str, int, int], None]
) -> list[Given]:
    """What texts give each of some layers of an fx program."""
    run = Run(program, feeds, [node for site in found for node in read(site)])
    result = []
    for number, site in enumerate(found):
        progress("looking at layers", number, len(found))
        grams = []
        for value in (site.wide, site.middle.root):
            whole = [torch.cat([x, torch.ones(len(x), 1)], dim=1).double() for x in run.rows(value.native)]
            grams.append(torch.stack([x.T @ x for x in whole]).sum(0).numpy())
        active = torch.cat(run.rows(site.feed_forward.down.input.native)).double()
        result.append(Given(grams[0], grams[1], active.square().mean(0).numpy()))
        run.let_go(read(site))
    return result
