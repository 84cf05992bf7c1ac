"""The loss of a distillation: terms over a teacher and a student that are both run once a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule

from ...ir.program import Program
from ..base import Feed
from ..quantize.outputs import arguments
from .losses.base import Term
from .own import watched
from .recompute import recomputing

CACHED = 1 << 29  # bytes of the teacher's values that are kept
PROGRESSIVE = 0.5  # share of the run that goes layer by layer


class Objective:
    """Called with (feed, share of the run that is done), as the trainer does.

    Args:
        progressive: the first half of the run teaches the layers from the first on, one more at a time, and
            only then the outputs (progressive knowledge transfer, MobileBERT: Sun et al., 2020,
            arXiv:2004.02984, section 3.5).
        ends: names of the student's nodes behind which activations are computed again (recompute.py).
    """

    def __init__(
        self,
        teacher: Program,
        student: Program,
        graph: GraphModule,
        terms: Sequence[Term],
        progressive: bool = False,
        ends: Sequence[str] = (),
    ) -> None:
        self.program, self.terms, self.progressive = student, terms, progressive
        self._teacher = watched(teacher.graph, [node for term in terms for node in term.taught])
        self._student: torch.nn.Module = watched(graph, [node for term in terms for node in term.learns])
        if ends:
            self._student = recomputing(self._student, ends)
        self._outputs = len(student.outputs)
        self._cached: dict[int, list[list[torch.Tensor]]] = {}
        self._room = CACHED

    def __call__(self, feed: Feed, share: float) -> torch.Tensor:
        active = self._active(share)
        targets = self._targets(feed)
        values = self._student(*arguments(self.program, feed))
        total = torch.zeros(())
        place = self._outputs
        for number, term in enumerate(self.terms):
            seen = values[place : place + len(term.learns)]
            place += len(term.learns)
            if number in active:
                total = total + term.weight * term.distance(feed, targets[number], seen)
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
            values = self._teacher(*arguments(self.program, feed))
            found, place = [], self._outputs
            for term in self.terms:
                found.append(term.target(feed, values[place : place + len(term.taught)]))
                place += len(term.taught)
        # Terms that look at the same values share them.
        size = sum(t.nbytes for t in {id(t): t for each in found for t in each}.values())
        if size <= self._room:
            self._room -= size
            self._cached[id(feed)] = found
        return found
