"""The loss of a distillation: terms over a teacher and a student that are both run once a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch.fx import GraphModule, Node

from ....ir.program import Program
from ...common.outputs import arguments
from ...manager.contract import Feed
from ..training.own import watched
from ..training.recompute import pieces, recomputing
from .losses.base import Term
from .losses.readings import SAME, Reading

CACHED = 1 << 29  # bytes of the teacher's values that are kept
PROGRESSIVE = 0.5  # share of the run that goes layer by layer

Cut = Callable[[GraphModule, Sequence[str]], torch.nn.Module]
Student = Callable[[Feed, float], Sequence[torch.Tensor]]


class Watched:
    """A graph that gives the values of some of its nodes.

    Args:
        ends: names of nodes behind which the graph is cut (recompute.py). cut: how; by default into pieces
            whose activations are computed again.
    """

    def __init__(
        self,
        program: Program,
        graph: GraphModule,
        nodes: list[Node],
        ends: Sequence[str] = (),
        cut: Cut = recomputing,
    ) -> None:
        self.program = program
        self.module: torch.nn.Module = watched(graph, nodes)
        if ends:
            self.module = cut(self.module, ends)

    def __call__(self, feed: Feed, share: float) -> Sequence[torch.Tensor]:
        return self.module(*arguments(self.program, feed))[len(self.program.outputs) :]


class Objective:
    """Called with (feed, share of the run that is done), as the trainer does.

    Args:
        student: (feed, share) -> the values that every term looks at, one term after the other.
        progressive: the first half of the run teaches the layers from the first on, one more at a time, and
            only then the outputs (progressive knowledge transfer, MobileBERT: Sun et al., 2020,
            arXiv:2004.02984, section 3.5).
        ends: where the teacher is cut into pieces, so that processes can part it; they ask it in step, so
            that none of its values is kept then.
        reading: how teacher and student read a text; by default both read the feed.
    """

    def __init__(
        self,
        teacher: Program,
        terms: Sequence[Term],
        student: Student,
        progressive: bool = False,
        ends: Sequence[str] = (),
        reading: Reading = SAME,
    ) -> None:
        self.terms, self.progressive = terms, progressive
        self._reading = reading
        taught = [node for term in terms for node in term.taught]
        self.teacher = Watched(teacher, teacher.graph, taught, ends, pieces)
        self._student = student
        self._cached: dict[int, list[list[torch.Tensor]]] = {}
        self._room = 0 if ends else CACHED

    def __call__(self, feed: Feed, share: float) -> torch.Tensor:
        active = self._active(share)
        targets = self._targets(feed)
        values = iter(self._reading.below(feed, self._student(feed, share)))
        total = torch.zeros(())
        for number, (term, target) in enumerate(zip(self.terms, targets, strict=True)):
            seen = list(islice(values, len(term.learns)))
            if number in active:
                total = total + term.weight * term.distance(feed, target, seen)
        return total

    def _active(self, share: float) -> set[int]:
        depth = 1 + max((term.layer for term in self.terms if term.layer is not None), default=-1)
        if not self.progressive or not depth or share >= PROGRESSIVE:
            return set(range(len(self.terms)))
        stage = int(share / PROGRESSIVE * depth)
        return {i for i, term in enumerate(self.terms) if term.layer is not None and term.layer <= stage}

    def _targets(self, feed: Feed) -> list[list[torch.Tensor]]:
        """The teacher's, kept while there is room: a feed is the same object in every epoch."""
        known = self._cached.get(id(feed))
        if known is not None:
            return known
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            given = self.teacher(self._reading.given(feed), 0.0)
            values = iter(self._reading.above(feed, given))
            found = [term.target(feed, list(islice(values, len(term.taught)))) for term in self.terms]
        # Terms that look at the same values share them.
        size = sum(t.nbytes for t in {id(t): t for each in found for t in each}.values())
        if size <= self._room:
            self._room -= size
            self._cached[id(feed)] = found
        return found
