"""Scales and shifts of norms over a narrower stream, by least squares towards what the wide ones give.

Feature by feature, each norm given what those before it really make of the texts, as `nonorm` does it. This
is where a scale that could not be folded away is approximated, and where a norm over fewer features gets its
share of the sum of squares back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.fx import Node

from ....ir.blocks.base import Norm
from ....ir.fx.graph import attribute, replace_tensor
from ....ir.program import Program
from ...common.lockstep import Lockstep
from ...manager.contract import Context, Feed
from ...simplify.folds.linear import like
from ...simplify.norms.calibrated import rows
from ...simplify.norms.moments import Moments
from .narrow import path_of


@dataclass
class _Seen:
    """What is known of a scale: norms may share one. xx, xt: sums (features,) for a norm without a shift."""

    moments: Moments = field(default_factory=Moments)
    xx: torch.Tensor | float = 0.0
    xt: torch.Tensor | float = 0.0

    def add(self, x: torch.Tensor, target: torch.Tensor) -> None:
        self.moments.add(x, target)
        sound = x.isfinite().all(dim=1) & target.isfinite().all(dim=1)
        x, target = x[sound].double(), target[sound].double()
        self.xx, self.xt = self.xx + x.square().sum(dim=0), self.xt + (x * target).sum(dim=0)

    def numbers(self, shifts: bool) -> tuple[torch.Tensor, torch.Tensor]:
        if shifts:
            return self.moments.affine()
        xx, xt = torch.as_tensor(self.xx), torch.as_tensor(self.xt)
        gamma = xt / xx.where(xx > 0, torch.ones_like(xx))
        return gamma, torch.zeros_like(gamma)


def in_order(program: Program, norms: Sequence[tuple[Norm, np.ndarray]]) -> list[tuple[Norm, np.ndarray]]:
    """As the graph computes them, the norms of several streams among each other."""
    order = {node.name: number for number, node in enumerate(program.graph.graph.nodes)}
    return sorted(norms, key=lambda pair: order[pair[0].root.native.name])


def fit(
    student: Program,
    teacher: Program,
    norms: Sequence[tuple[Norm, np.ndarray]],
    feeds: Sequence[Feed],
    context: Context,
) -> dict[str, float]:
    """Writes scales and shifts into the student, whose own are ones and zeros; gives by a norm's name how
    much of the sum of squares is missed.

    Args:
        teacher: of which `student` was made; nodes have the same names.
        norms: of the teacher, in graph order, each with the matrix (features, fewer features) of its stream.
            Norms without a scale are left.
    """
    theirs, ours = ({n.name: n for n in p.graph.graph.nodes} for p in (teacher, student))
    pairs = [(theirs[norm.root.native.name], ours[norm.root.native.name]) for norm, _ in norms]
    wide = Lockstep(teacher, feeds, [a for a, _ in pairs])
    thin = Lockstep(student, feeds, [b for _, b in pairs])
    seen: dict[str, _Seen] = {}
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    missed: dict[str, float] = {}
    for number, ((norm, matrix), (above, below)) in enumerate(zip(norms, pairs, strict=True)):
        context.progress("fitting norms", number, len(norms))
        wide.reached(above)
        thin.reached(below)
        path = path_of(norm.weight)
        if path:
            turn = torch.from_numpy(matrix)
            known = seen.setdefault(path, _Seen())
            due = [wide.value(above, place).double() @ turn for place in range(len(feeds))]
            for place, feed in enumerate(feeds):
                pair = (thin.value(below, place), due[place])
                known.add(*(rows(student, feed, norm, value) for value in pair))
            found[path] = known.numbers(norm.bias is not None)
            missed[norm.root.name] = _put(student, norm, thin, below, found[path], feeds, due)
        wide.let_go(above)
        thin.let_go(below)
    _write(student, norms, found)
    return missed


def _put(
    program: Program,
    norm: Norm,
    run: Lockstep,
    node: Node,
    numbers: tuple[torch.Tensor, torch.Tensor],
    feeds: Sequence[Feed],
    due: Sequence[torch.Tensor],
) -> float:
    """Makes a norm give what it will, and says how much of the squares is missed."""
    away = size = 0.0
    for place, feed in enumerate(feeds):
        plain = run.value(node, place)
        given = plain.double() * numbers[0] + numbers[1]
        run.put(node, place, given.to(plain.dtype))
        a, b = (rows(program, feed, norm, value) for value in (given, due[place]))
        sound = a.isfinite().all(dim=1) & b.isfinite().all(dim=1)
        away += float((a - b)[sound].square().sum())
        size += float(b[sound].square().sum())
    return away / max(size, torch.finfo(torch.float64).tiny)


def _write(
    program: Program,
    norms: Sequence[tuple[Norm, np.ndarray]],
    found: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
) -> None:
    gm = program.graph
    readers = {str(node.target): node for node in gm.graph.find_nodes(op="get_attr")}
    for norm, _ in norms:
        numbers = found.get(path_of(norm.weight))
        for path, new in zip((path_of(norm.weight), path_of(norm.bias)), numbers or (), strict=False):
            if path:
                old = attribute(gm, path)
                replace_tensor(gm, readers[path], like(old, new.reshape(old.shape)))
    gm.recompile()
