"""The term at a layer's matrices: the student's, projected to the teacher's width, near the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from .....ir.blocks import recognise
from .....ir.blocks.base import Attention, FeedForward, Linear
from .....ir.blocks.stream import StreamLayer
from .....ir.blocks.walk import bare
from .....ir.errors import PassError
from .....ir.fx.graph import attribute
from .....ir.program import Program
from .....ir.view import view
from ....manager.contract import Feed
from .base import Tensors, Term
from .outputs import TINY
from .projections import Projection

Side = tuple[Linear, bool]  # a product, and whether it reads the stream (or gives to it)


@dataclass(frozen=True)
class Matrix:
    """A product's weight in a graph. scale: of the norm that it reads, where the stream doesn't go through
    that; empty else."""

    graph: GraphModule
    weight: str
    transposed: bool
    scale: str = ""

    def numbers(self) -> torch.Tensor:
        """(out, in), the norm's scale multiplied in: what two models of one function have in common."""
        matrix: torch.Tensor = attribute(self.graph, self.weight)
        matrix = matrix if self.transposed else matrix.T
        return matrix * attribute(self.graph, self.scale) if self.scale else matrix


@dataclass
class Matrices(Term):
    """Zhao et al., 2019, arXiv:1909.11687, equation 2, in its upward form, over the squares of the teacher's:
    |W - w V|^2 of matrices that read the stream, |W - U w|^2 of those that give to it; the mean over them.
    Behind a norm that the stream does not go through, w V counts up to a factor: such a norm divides by the
    length over fewer features.

    pairs: (teacher's, student's, whether they read the stream).
    """

    pairs: list[tuple[Matrix, Matrix, bool]] | None = None
    projection: Projection | None = None

    def distance(self, feed: Feed, target: Tensors, values: Tensors) -> torch.Tensor:
        assert self.pairs
        assert self.projection is not None
        found = []
        for above, below, reads in self.pairs:
            a, b = above.numbers().detach().float(), below.numbers().float()
            b = b @ self.projection.down if reads else self.projection.up @ b
            if above.scale or below.scale:
                b = b * ((a * b).sum() / b.square().sum().clamp(min=TINY)).detach()
            found.append((a - b).square().sum() / a.square().sum().clamp(min=TINY))
        return torch.stack(found).mean()


def matrices(
    programs: tuple[Program, Program],
    layers: tuple[StreamLayer, StreamLayer],
    weight: float,
    place: int,
    projection: Projection,
) -> tuple[Matrices | None, int]:
    """The term of a pair of layers, None where no matrix corresponds; and how many matrices do not.

    Args:
        programs, layers: the teacher's before the student's.

    Raises:
        PassError: the layers are of other blocks.
    """
    kinds = [_kinds(layer) for layer in layers]
    if kinds[0] != kinds[1]:
        raise PassError(
            f"the layer that ends at {layers[1].exit.name} is of {', '.join(kinds[1])}, and its teacher's of "
            f"{', '.join(kinds[0])}: pair others by layers=, or give matrices a weight of 0"
        )
    scales = [_scales(program) for program in programs]
    pairs: list[tuple[Matrix, Matrix, bool]] = []
    left = 0
    for one, other in zip(*(layer.blocks for layer in layers), strict=True):
        for (above, reads), (below, _) in zip(_sides(one), _sides(other), strict=False):
            given = _matrix(programs[0], above, scales[0] if reads else {})
            made = _matrix(programs[1], below, scales[1] if reads else {})
            if given is None or made is None or not _fits(above, below, reads, projection):
                left += 1
            else:
                pairs.append((given, made, reads))
    if not pairs:
        return None, left
    parameters = {f"{projection.name}.up": projection.up, f"{projection.name}.down": projection.down}
    return Matrices(weight, place, [], [], parameters, pairs, projection), left


def _kinds(layer: StreamLayer) -> list[str]:
    return [
        "a feed-forward" if isinstance(b, FeedForward) else "a cross-attention" if b.cross else "an attention"
        for b in layer.blocks
    ]


def _sides(block: Attention | FeedForward) -> list[Side]:
    """A block's products at the stream, one that serves several purposes once."""
    if isinstance(block, Attention):
        inward, outward = [block.q, *([] if block.cross else [block.k, block.v])], block.o
    else:
        inward, outward = [block.gate, block.up], block.down
    found = [(linear, True) for linear in inward if linear is not None]
    found += [(outward, False)] if outward is not None else []
    return list({linear.root: (linear, reads) for linear, reads in found}.values())


def _fits(above: Linear, below: Linear, reads: bool, projection: Projection) -> bool:
    widths = above.in_features, below.in_features, above.out_features, below.out_features
    stream, inner = (widths[:2], widths[2:]) if reads else (widths[2:], widths[:2])
    return stream == tuple(projection.up.shape) and inner[0] == inner[1]


def _scales(program: Program) -> dict[object, str]:
    """By what a norm gives, the path of its scale: of norms that the stream does not go through."""
    found: dict[object, str] = {}
    for norm in recognise(view(program)).norm:
        node = None if norm.weight is None else bare(norm.weight).native
        if norm.position == "pre" and isinstance(node, Node) and node.op == "get_attr":
            found[norm.root] = str(node.target)
    return found


def _matrix(program: Program, linear: Linear, scales: dict[object, str]) -> Matrix | None:
    node = linear.weight.native
    if linear.axis != -1 or linear.groups != 1 or not isinstance(node, Node) or node.op != "get_attr":
        return None
    scale = scales.get(bare(linear.input), "")
    return Matrix(program.graph, str(node.target), linear.transposed, scale)
