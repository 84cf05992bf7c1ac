"""One pair of matrices between a student's width and its teacher's, shared by all layers.

Zhao et al., 2019, arXiv:1909.11687, section 3.2: U takes what the student's stream holds to the teacher's
width, and V the matrices that read it; they learn along and are thrown away. Here they start where the texts
say: U is the least-squares map from the student's states after layers to the teacher's, all layers together
and each over its mean square, and V its pseudo-inverse. What `share-projections` or `prune-hidden` made is
found again by that, and a student of its own width and make gets what there is in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .....ir.blocks.stream import StreamLayer
from .....ir.errors import PassError
from .....ir.evaluated import evaluated
from .....ir.program import Program
from ....common.outputs import arguments, rows
from ....manager.contract import Feed
from ...training.own import watched
from .readings import SAME, Reading

FEEDS = 8  # that the first values come from
RELATIVE = 1e-6  # of the largest: directions with less are not inverted
TINY = torch.finfo(torch.float64).tiny
Layers = Sequence[tuple[StreamLayer, StreamLayer]]


@dataclass(frozen=True)
class Projection:
    """up: (teacher's width, student's), of states. down: the other way round, of matrices that read them."""

    up: torch.nn.Parameter
    down: torch.nn.Parameter

    @property
    def name(self) -> str:
        return "projections.{}x{}".format(*self.up.shape)


Projections = dict[tuple[int, int], Projection]  # by (teacher's width, student's)


def projections(
    teacher: Program, student: Program, layers: Layers, feeds: Sequence[Feed], reading: Reading = SAME
) -> Projections:
    """For each pair of widths that differ, from what both programs give on some feeds.

    Args:
        layers: (of the teacher, of the student), as they teach each other.
        feeds: the student's. reading: how both read them.

    Raises:
        PassError: there are no layers, or all have one width.
    """
    if not layers:
        raise PassError("projections=shared joins the widths of layers, and none were found that correspond")
    widths = [(width(above), width(below)) for above, below in layers]
    differing = [pair for pair in dict.fromkeys(widths) if pair[0] != pair[1]]
    if not differing:
        raise PassError(
            f"teacher and student are {widths[0][0]} wide, both, so there is nothing to project: leave "
            "projections out"
        )
    ends = [[layer.exit.native for layer in each] for each in zip(*layers, strict=True)]
    runs = [watched(evaluated(one).graph, nodes) for one, nodes in zip((teacher, student), ends, strict=True)]
    sums = [_Sums() for _ in layers]
    with torch.no_grad():
        for feed in feeds[:FEEDS]:
            given, made = (
                run(*arguments(one, each))[len(one.outputs) :]
                for run, one, each in zip(runs, (teacher, student), (reading.given(feed), feed), strict=True)
            )
            given, made = reading.above(feed, given), reading.below(feed, made)
            for each, a, b in zip(sums, given, made, strict=True):
                each.add(*(rows(student, feed, x).double() for x in (a, b)))
    return {
        pair: _solved([each for each, own in zip(sums, widths, strict=True) if own == pair])
        for pair in differing
    }


@dataclass
class _Sums:
    """Over rows: teacher's states times the student's, the student's times their own, teacher's squares."""

    cross: torch.Tensor | float = 0.0
    own: torch.Tensor | float = 0.0
    size: float = 0.0

    def add(self, above: torch.Tensor, below: torch.Tensor) -> None:
        sound = above.isfinite().all(dim=1) & below.isfinite().all(dim=1)
        above, below = above[sound], below[sound]
        self.cross, self.own = self.cross + above.T @ below, self.own + below.T @ below
        self.size += float(above.square().sum())


def width(layer: StreamLayer) -> int:
    """The features of a layer's stream."""
    return int(layer.exit.native.meta["val"].shape[-1])


def _solved(sums: Sequence[_Sums]) -> Projection:
    cross, own = (
        sum(torch.as_tensor(getattr(one, name)) / max(one.size, TINY) for one in sums)
        for name in ("cross", "own")
    )
    assert isinstance(cross, torch.Tensor)
    assert isinstance(own, torch.Tensor)
    up = cross @ torch.linalg.pinv(own, rtol=RELATIVE, hermitian=True)
    down = torch.linalg.pinv(up, rtol=RELATIVE)
    return Projection(*(torch.nn.Parameter(one.float().contiguous()) for one in (up, down)))
