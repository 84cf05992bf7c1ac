"""How sharply a program's outputs react to each weight: the trace of a Hessian, by Hutchinson's estimator.

The loss is what quantization changes, the distance D of the outputs to those of the float program, averaged
over rows: half the squared distance for vectors, the Kullback-Leibler divergence for logits. It needs no
labels. At the float weights it is 0 with gradient 0, and its Hessian is exactly the Gauss-Newton matrix
J^T A J, with J the Jacobian of the outputs by the weights and A the Hessian of D by the outputs: the identity
for squared distance, diag(p) - p p^T for the divergence (which makes J^T A J the Fisher matrix).

The trace is E |J^T B u|^2 over Rademacher vectors u, for any B with B B^T = A: Hutchinson's estimator
(Hutchinson, 1990) with its probes on the side of the outputs. Q-BERT (Shen et al., 2020, arXiv:1909.05840)
and HAWQ-V2 (Dong et al., 2020, arXiv:1911.03852) put them on the side of the weights, v^T H v, because a loss
against labels has a part of the Hessian that is no Gauss-Newton matrix; that takes a double backward for each
weight and probe, which fused attention does not have. Here one backward gives every weight at once, and no
estimate is negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter

from ....ir.errors import WeightError
from ....ir.fx.graph import attribute
from ....ir.program import Program
from ...common.outputs import arguments, logits, rows
from ...manager.contract import Feed


def traces(
    program: Program, feeds: Sequence[Feed], weights: Iterable[str], samples: int = 8, seed: int = 0
) -> dict[str, float]:
    """The trace of the Hessian by each weight. Deterministic.

    The loss that quantizing the weight adds is about half of trace / size * |error|^2, where the errors of
    its numbers are unrelated to the Hessian.

    Args:
        program: fx. It is not changed.
        feeds: real inputs.
        weights: paths of parameters, as get_attr nodes name them. Two names of one tensor get one trace.
        samples: probes to each feed and output.
        seed: of the probes.

    Raises:
        WeightError: the graph reads no tensor of this name, or it holds integers.
    """
    graph = program.graph
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    names = list(dict.fromkeys(weights))
    for name in names:
        if name not in read:
            raise WeightError(f"the graph reads no weight '{name}'")
    tensors = {name: attribute(graph, name) for name in names}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise WeightError(
                f"'{name}' holds {str(tensor.dtype).removeprefix('torch.')}, which has no gradient"
            )
    # Leaves of their own over the same memory: the program's parameters are shared, and stay as they are.
    leaves = {id(t): t.detach().requires_grad_() for t in tensors.values()}
    every = {name: id(attribute(graph, name)) for name in read}
    sources = {name: leaves[key] for name, key in every.items() if key in leaves}
    generator = torch.Generator().manual_seed(seed)
    sums: dict[int, dict[int, float]] = {}
    counts: dict[int, int] = {}
    for feed in feeds:
        with torch.enable_grad():
            found = _Leaves(graph, sources).run(*arguments(program, feed), enable_io_processing=False)
        outputs = [found] if isinstance(found, torch.Tensor) else torch.utils._pytree.tree_leaves(found)
        for number, output in enumerate(outputs):
            if not output.requires_grad:
                continue
            flat = rows(program, feed, output)
            counts[number] = counts.get(number, 0) + len(flat)
            total = sums.setdefault(number, dict.fromkeys(leaves, 0.0))
            for _ in range(samples):
                probe = _probe(flat.detach(), logits(program, output), generator)
                gradients = torch.autograd.grad(
                    flat, list(leaves.values()), probe, retain_graph=True, allow_unused=True
                )
                for key, gradient in zip(leaves, gradients, strict=True):
                    if gradient is not None:
                        total[key] += float(gradient.double().square().sum()) / samples
    return {
        name: sum(total[id(t)] / max(1, counts[number]) for number, total in sums.items())
        for name, t in tensors.items()
    }


class _Leaves(Interpreter):
    """Runs a graph with other tensors in place of some that get_attr nodes read."""

    def __init__(self, graph: GraphModule, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__(graph)
        self.tensors = tensors

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.tensors[target] if target in self.tensors else super().get_attr(target, args, kwargs)


def _probe(output: torch.Tensor, logits: bool, generator: torch.Generator) -> torch.Tensor:
    """B u for each row: u itself, or (diag(sqrt p) - p sqrt p^T) u."""
    signs = torch.randint(0, 2, output.shape, generator=generator).to(output.dtype) * 2 - 1
    if not logits:
        return signs
    p = output.softmax(dim=-1)
    scaled = p.sqrt() * signs
    return scaled - p * scaled.sum(dim=-1, keepdim=True)
