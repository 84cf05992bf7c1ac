"""Distillation: a rewritten graph learns to give what the graph before the rewrite gave. No labels.

The loss is the mean over rows (padding left out) of the distance to the teacher's: at the outputs the
squared distance over the mean square, which is twice 1 - cosine for unit vectors, or the Kullback-Leibler
divergence where the outputs are logits (Hinton et al., 2015, arXiv:1503.02531); and at every norm between
layers the squared distance again, as TinyBERT (Jiao et al., 2020, arXiv:1909.10351) and TernaryBERT (Zhang et
al., 2020, arXiv:2009.12812, section 3.3) have it, because the hidden states tell each layer what it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from math import inf

import torch
from torch.fx import GraphModule, Node

from ....ir.blocks import recognise
from ....ir.fx.graph import attribute, clone, replace_tensor
from ....ir.inputs.probe import probes
from ....ir.program import Program
from ....ir.view import view
from ...common.calibration import check, spread
from ...common.outputs import arguments, logits, rows
from ...manager.contract import Context, Feed
from ..training.plan import Plan
from ..training.trainer import Progress, train

HELD_OUT = 10  # every tenth feed is kept from training, to measure on
MEASURED = 8  # feeds that a measurement takes, at most


@dataclass(frozen=True)
class Distance:
    """outputs: the distance at the outputs alone. cosine: the mean cosine of the outputs' rows."""

    outputs: float
    cosine: float


class Teacher:
    """The program as it was, and the feeds on which it is asked.

    Args:
        program: fx; its graph is cloned, over the same tensors.
        feeds: what to train and measure on.
        seed: of the order in which feeds are taken at the first call of `imitate`.
    """

    def __init__(self, program: Program, feeds: Sequence[Feed], seed: int = 0) -> None:
        self.program = program
        self.outputs = len(program.outputs)
        self.names = _norms(program)
        self.graph = self.watched(program.graph)
        held, last = len(feeds) >= HELD_OUT, HELD_OUT - 1
        self.train = [feed for i, feed in enumerate(feeds) if not held or i % HELD_OUT != last]
        self.test = spread(feeds[last::HELD_OUT] if held else feeds, MEASURED)
        self.seeds = count(seed)

    @classmethod
    def of(cls, program: Program, context: Context) -> Teacher:
        """A teacher on the calibration data; on probe inputs, to measure on, where there are none.

        Raises:
            DataError: the data are empty, constant, NaN, or do not fit the program.
        """
        if context.calibration:
            check(program, context.calibration)
        return cls(program, context.calibration or probes(program, context.seed), context.seed)

    def watched(self, graph: GraphModule) -> GraphModule:
        """A clone that also gives the hidden states at the teacher's norms."""
        twin = clone(graph)
        by_name = {node.name: node for node in twin.graph.nodes}
        output = twin.graph.output_node()
        results = torch.utils._pytree.tree_leaves(output.args)
        output.args = ((*results, *(by_name[name] for name in self.names)),)
        twin.recompile()
        return twin

    def ask(self, feed: Feed) -> list[torch.Tensor]:
        with torch.no_grad():
            return list(self.graph(*arguments(self.program, feed)))

    def distance(self, feed: Feed, student: GraphModule) -> torch.Tensor:
        """The loss of a watched student on a feed, a scalar with a gradient."""
        found = student(*arguments(self.program, feed))
        pairs = [
            _distance(self.program, feed, number < self.outputs, expected, actual)
            for number, (expected, actual) in enumerate(zip(self.ask(feed), found, strict=True))
            if actual.is_floating_point()
        ]
        outputs, hidden = pairs[: self.outputs], pairs[self.outputs :]
        return sum(outputs, torch.zeros(())) + (sum(hidden, torch.zeros(())) / len(hidden) if hidden else 0)

    def measure(self, graph: GraphModule) -> Distance:
        """How far a graph (not a watched one) is from the teacher, on the feeds kept for that."""
        distances, cosines, seen = 0.0, 0.0, 0
        with torch.no_grad():
            for feed in self.test:
                found = graph(*arguments(self.program, feed))
                for expected, actual in zip(self.ask(feed)[: self.outputs], found, strict=True):
                    if not actual.is_floating_point():
                        continue
                    distances += float(_distance(self.program, feed, True, expected, actual))
                    a, b = (rows(self.program, feed, one) for one in (expected, actual))
                    cosines += float(torch.cosine_similarity(a, b, dim=-1).nanmean())
                    seen += 1
        return Distance(distances / max(1, seen), cosines / max(1, seen))


def imitate(
    teacher: Teacher,
    student: GraphModule,
    parameters: Iterable[torch.nn.Parameter],
    steps: int,
    rate: float,
    *,
    progress: Progress = lambda description, done, total: None,
    title: str = "learning",
) -> list[float]:
    """Train parameters of the student, in place; gives the loss of each step. Deterministic.

    The rate falls to 0 by a line. It is relative: a step moves a parameter's numbers by about rate times
    their root mean square, so that tables, scales and norms need no rates of their own.

    Args:
        teacher: gives the feeds, in another order at each call.
        student: as the teacher watches it (`Teacher.watched`).

    Raises:
        DataError: the loss became infinite or NaN.
    """
    named = {str(number): parameter for number, parameter in enumerate(parameters)}
    if not named or not steps:
        return []
    log = train(
        named,
        lambda feed, share: teacher.distance(feed, student),
        teacher.train,
        Plan(steps, rate, warmup=0, decay=0, clip=inf, seed=next(teacher.seeds)),
        rates={name: _size(parameter) for name, parameter in named.items()},
        progress=progress,
        title=title,
    )
    return log.losses


def own_vectors(graph: GraphModule) -> list[torch.nn.Parameter]:
    """Copies of biases, and of scales and shifts of norms, put in their place: the graph's own, to learn."""
    copies: dict[int, torch.nn.Parameter] = {}
    for node in graph.graph.find_nodes(op="get_attr"):
        tensor = attribute(graph, str(node.target))
        if isinstance(tensor, torch.Tensor) and tensor.dim() == 1 and tensor.is_floating_point():
            if id(tensor) not in copies:
                copies[id(tensor)] = torch.nn.Parameter(tensor.detach().clone())
                copies[id(copies[id(tensor)])] = copies[id(tensor)]
            replace_tensor(graph, node, copies[id(tensor)])
    return list(dict.fromkeys(copies.values()))


def _size(parameter: torch.Tensor) -> float:
    """Root mean square; that of a scale of 1 for a tensor of zeros."""
    return float(parameter.detach().float().square().mean().sqrt()) or 1.0


def _norms(program: Program) -> list[str]:
    """Names of the nodes that give the hidden states: norms over features, not those of queries and keys."""
    found = [norm.root.native for norm in recognise(view(program)).norm if norm.position != "inner"]
    results = set(torch.utils._pytree.tree_leaves(program.graph.graph.output_node().args))
    return [node.name for node in found if isinstance(node, Node) and node not in results]


def _distance(
    program: Program, feed: Feed, output: bool, expected: torch.Tensor, actual: torch.Tensor
) -> torch.Tensor:
    a, b = rows(program, feed, expected).float(), rows(program, feed, actual).float()
    if output and logits(program, expected):
        return torch.nn.functional.kl_div(
            b.log_softmax(-1), a.log_softmax(-1), reduction="batchmean", log_target=True
        )
    # Rows that look at nothing are NaN in the teacher, and teach nothing.
    known = a.isfinite().all(dim=-1)
    a, b = a[known], b[known]
    return (a - b).square().sum() / a.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
