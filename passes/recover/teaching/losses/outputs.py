"""Terms at outputs and hidden states: vectors by distance, logits as soft labels, labels that people gave."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.fx import Node

from .....ir.program import Program
from ....common.outputs import logits, rows
from ....manager.contract import Feed
from .base import Tensors, Term
from .projections import Projections


@dataclass
class Hidden(Term):
    """What the residual stream holds after a layer, by mean squared error over the mean square, padding left
    out (PKD: Sun et al., 2019, arXiv:1908.09355; TinyBERT: Jiao et al., 2020, arXiv:1909.10351, equation 8;
    MobileBERT's feature-map transfer: Sun et al., 2020, arXiv:2004.02984, section 3.4.1). Where the widths
    differ, a learned matrix takes the student's state to the teacher's width, as TinyBERT has it.
    """

    program: Program | None = None

    def distance(self, feed: Feed, target: Tensors, values: Tensors) -> torch.Tensor:
        assert self.program is not None
        a, b = (rows(self.program, feed, x).float() for x in (target[0], values[0]))
        for matrix in self.parameters.values():
            b = b @ matrix.T
        return relative(a, b)


def hidden(
    program: Program,
    weight: float,
    layer: int,
    taught: Node,
    learns: Node,
    seed: int,
    shared: Projections | None = None,
) -> Hidden:
    """The term between two values (batch, length, width), with a matrix where the widths differ: the one that
    all layers share, if there is such a one."""
    widths = (int(taught.meta["val"].shape[-1]), int(learns.meta["val"].shape[-1]))
    term = Hidden(weight, layer, [taught], [learns], program=program)
    if shared and widths in shared:
        term.parameters[f"{shared[widths].name}.up"] = shared[widths].up
    elif widths[0] != widths[1]:
        matrix = torch.empty(*widths)
        torch.nn.init.orthogonal_(matrix, generator=torch.Generator().manual_seed(seed))
        term.parameters[f"projection.{layer}"] = torch.nn.Parameter(matrix)
    return term


TINY = torch.finfo(torch.float32).tiny
LABELS = "labels"  # of a feed: (batch,) or (batch, length) class numbers, -100 where there is none
NO_LABEL = -100


def relative(expected: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Squared distance over the mean square, 2 - 2 cosine for unit vectors; (rows, width) both."""
    # Rows that look at nothing are NaN in the teacher, and teach nothing.
    known = expected.isfinite().all(dim=-1)
    a, b = expected[known], actual[known]
    return (a - b).square().sum() / a.square().sum().clamp(min=TINY)


@dataclass
class Outputs(Term):
    """Outputs by mean squared error over the mean square, rows of padding left out: embeddings, hidden
    states, logits. The mean over the outputs that are floating. Where a teacher's is wider it is the stream's
    width, and the matrix that all layers share takes the student's there."""

    program: Program | None = None
    shared: Projections = field(default_factory=dict)

    def distance(self, feed: Feed, target: Tensors, values: Tensors) -> torch.Tensor:
        assert self.program is not None
        found = []
        for given, made in zip(target, values, strict=True):
            if given.is_floating_point():
                a, b = (rows(self.program, feed, x).float() for x in (given, made))
                wider = self.shared.get((a.shape[-1], b.shape[-1]))
                found.append(relative(a, b if wider is None else b @ wider.up.T))
        return torch.stack(found).mean()


@dataclass
class Similarity(Term):
    """The cosines between the rows of a batch, by their mean squared error: which sentences are near each
    other is what embeddings are for (similarity-preserving distillation, Tung and Mori, 2019,
    arXiv:1907.09682)."""

    def distance(self, feed: Feed, target: Tensors, values: Tensors) -> torch.Tensor:
        a, b = (torch.nn.functional.normalize(x[0].float(), dim=-1) for x in (target, values))
        return (a @ a.T - b @ b.T).square().mean()


@dataclass
class SoftLabels(Term):
    """Kullback-Leibler divergence of the student's distribution from the teacher's at temperature T, times
    T^2 so that its gradient does not shrink with T (Hinton et al., 2015, arXiv:1503.02531, section 2.1)."""

    program: Program | None = None
    temperature: float = 1.0

    def distance(self, feed: Feed, target: Tensors, values: Tensors) -> torch.Tensor:
        assert self.program is not None
        found = []
        for a, b in zip(target, values, strict=True):
            if logits(self.program, a):
                made, due = (
                    (rows(self.program, feed, x).float() / self.temperature).log_softmax(-1) for x in (b, a)
                )
                divergence = torch.nn.functional.kl_div(made, due, reduction="batchmean", log_target=True)
                found.append(divergence * self.temperature**2)
        return torch.stack(found).mean()


@dataclass
class HardLabels(Term):
    """Cross-entropy against the labels of the feed."""

    def distance(self, feed: Feed, target: Tensors, values: Tensors) -> torch.Tensor:
        given = torch.from_numpy(feed[LABELS]).long().reshape(-1)
        found = values[0].float().reshape(len(given), -1)
        if bool((given == NO_LABEL).all()):
            return found.sum() * 0
        return torch.nn.functional.cross_entropy(found, given, ignore_index=NO_LABEL)
