"""A term at a layer's hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from .....ir.program import Program
from ....common.outputs import rows
from ....manager.contract import Feed
from .base import Tensors, Term
from .outputs import relative


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


def hidden(program: Program, weight: float, layer: int, taught: Node, learns: Node, seed: int) -> Hidden:
    """The term between two values (batch, length, width), with a matrix where the widths differ."""
    widths = [int(node.meta["val"].shape[-1]) for node in (taught, learns)]
    term = Hidden(weight, layer, [taught], [learns], program=program)
    if widths[0] != widths[1]:
        matrix = torch.empty(*widths)
        torch.nn.init.orthogonal_(matrix, generator=torch.Generator().manual_seed(seed))
        term.parameters[f"projection.{layer}"] = torch.nn.Parameter(matrix)
    return term
