"""A program's outputs as rows that count: padding is left out, and logits are told from vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ...ir.inputs.masks import masks_along
from ...ir.inputs.memory import remembering
from ...ir.program import Program, Task
from ..manager.contract import Feed

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

Array = TypeVar("Array", bound=Any)  # torch.Tensor or np.ndarray

_LOGITS: frozenset[Task] = frozenset(
    {"sequence-classification", "token-classification", "question-answering", "masked-lm", "causal-lm"}
)


def rows(program: Program, feed: Feed, output: Array) -> Array:
    """(rows, width) of an output, or of a hidden state, without padding; of a torch or a NumPy array.

    A row is what stands along the last axis; a batch of single numbers is one row of them.
    """
    masks = masks_along(program.inputs, feed, output.shape[:-1])
    if masks:
        output = output[masks[0]]
    if output.ndim < 2 or output.shape[-1] == 1:
        return output.reshape(1, -1)
    return output.reshape(-1, output.shape[-1])


def logits(program: Program, output: torch.Tensor) -> bool:
    """Whether rows of an output are logits: the task has them, and there is more than one to a row."""
    return program.task in _LOGITS and output.dim() > 1 and output.shape[-1] > 1


def over_ids(program: Program, shape: Sequence[Any]) -> bool:
    """Whether an output's last axis has a number for each token of the program's vocabulary."""
    return any(spec.role == "token_ids" and [spec.high] == list(shape[-1:]) for spec in program.inputs)


def arguments(program: Program, feed: Feed) -> list[torch.Tensor]:
    """A feed as the graph module takes it."""
    import torch  # what is only asked about ONNX programs needs none

    whole = remembering(program.inputs, feed)
    return [torch.from_numpy(whole[spec.name].copy()) for spec in program.inputs]


def computed(program: Program, nodes: Iterable[Node], feed: Feed) -> list[torch.Tensor]:
    """What nodes of an fx program give for a feed; no more is run than they need."""
    import torch
    from torch.fx import Graph, GraphModule

    copies: dict[Node, Node] = {}
    graph = Graph()
    graph.graph_copy(program.graph.graph, copies)
    graph.output(tuple(copies[node] for node in nodes))
    # A dropout counts as an effect, and would keep all that is before it.
    graph.eliminate_dead_code(lambda node: node.is_impure(impure_random=False))
    with torch.no_grad():
        return list(GraphModule(program.graph, graph)(*arguments(program, feed)))


def distance(
    program: Program,
    feeds: Sequence[Feed],
    expected: Sequence[Sequence[torch.Tensor]],
    actual: Sequence[Sequence[torch.Tensor]],
) -> float:
    """Over all floating outputs: the mean Kullback-Leibler divergence of logits, or the squared distance
    relative to the squared size."""
    total = 0.0
    for number, reference in enumerate(expected[0]):
        if not reference.is_floating_point():
            continue
        away = size = 0.0
        for feed, wanted, got in zip(feeds, expected, actual, strict=False):
            a, b = rows(program, feed, wanted[number]).double(), rows(program, feed, got[number]).double()
            known = a.isfinite().all(dim=-1)
            a, b = a[known], b[known]
            if logits(program, reference):
                away += float((a.softmax(-1) * (a.log_softmax(-1) - b.log_softmax(-1))).sum())
                size += len(a)
            else:
                away += float((a - b).square().sum())
                size += float(a.square().sum())
        total += away / size if size else 0.0
    return total
