"""Narrow layers fitted one after the other, each on what the fitted ones before it really give.

The original and the narrow program are run over the same texts in step. Every product is moved by least
squares to where what it adds brings its sum nearest to what stands there in the original, in the coordinates
of the bottleneck; norms likewise, feature by feature; the last product of a layer towards the stream itself.
Layers that share weights are fitted together, each on what the original's layer is given: what a shared
weight gives in the last of them is not known before it is fitted in the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.fx import Node

from ....ir.blocks.walk import bare
from ....ir.program import Program
from ...common.outputs import distance
from ...manager.contract import Feed
from .hand import Dense
from .run import Rows, Run, read
from .solve import Solver
from .start import Affine
from .weights import NONE, stored
from .write import Layer


def fit(
    student: Program,
    teacher: Program,
    layers: Sequence[Layer],
    feeds: Sequence[Feed],
    progress: Callable[[str, int, int], None],
) -> tuple[list[float], float]:
    """Gives parameters of narrow layers their values, in place.

    Args:
        student: fx, as written. teacher: as it was.

    Returns:
        For each layer, how far what it adds to the stream is from what brings that to the original's
        (|difference|^2 / |wanted|^2); and so of the outputs (outputs.distance).
    """
    fitting = _Fitting(student, teacher, layers, feeds)
    errors: dict[int, float] = {}
    for together in _sets(layers):
        progress("fitting narrow layers", len(errors), len(layers))
        found = fitting.layers([layers[number] for number in together])
        errors.update(zip(together, found, strict=True))
    wanted, got = fitting.theirs.outputs(), fitting.mine.outputs()
    return [errors[number] for number in range(len(layers))], distance(teacher, feeds, wanted, got)


def _sets(layers: Sequence[Layer]) -> list[list[int]]:
    """The numbers of layers that share weights, together, in the order of the first of each."""
    sets: list[tuple[set[object], list[int]]] = []
    for number, layer in enumerate(layers):
        key, numbers = set(layer.site.key), [number]
        for one in [one for one in sets if one[0] & key]:
            key, numbers = key | one[0], one[1] + numbers
            sets.remove(one)
        sets.append((key, numbers))
    return sorted(numbers for _, numbers in sets)


@dataclass(frozen=True)
class _Place:
    """A layer, what the narrow program is run by up to it, and what stands there in the original."""

    layer: Layer
    run: Run
    entry: Rows
    wide: Rows
    sum: Rows
    middle: Rows
    active: Rows
    whole: Rows

    def inside(self, rows: Rows) -> Rows:
        """In the coordinates of the bottleneck."""
        return [x.double() @ torch.from_numpy(self.layer.narrow.basis) for x in rows]


class _Fitting:
    def __init__(
        self, student: Program, teacher: Program, layers: Sequence[Layer], feeds: Sequence[Feed]
    ) -> None:
        self.mine = Run(student, feeds, [node for layer in layers for node in _written(layer)])
        self.theirs = Run(teacher, feeds, [node for layer in layers for node in read(layer.site)])
        live = self.mine.live.graph
        self._solver = Solver([live] if live is student.graph else [live, student.graph])
        self._teacher, self._count = teacher.graph, len(feeds)

    def layers(self, layers: Sequence[Layer]) -> list[float]:
        """Fits layers that share weights, or one; how far each is from what it was to add."""
        places = self._places(layers)
        solver, first = self._solver, layers[0]
        for number in range(len(first.norms)):
            pairs = [(one.layer.norms[number], one) for one in places]
            targets = [_of(Affine(weight, np.zeros(len(weight))), one.wide) for (_, weight), one in pairs]
            solver.norms([(norm, one.run) for (norm, _), one in pairs], targets)
        for number in range(len(first.qkv)):
            each = [(*one.layer.qkv[number], one) for one in places]
            solver.dense(
                [(dense, one.run) for dense, _, one in each],
                [_of(product, one.wide) for _, product, one in each],
            )
        goals = [one.inside(self._sum(one)) for one in places]
        solver.dense([(_there(one.layer.o), one.run) for one in places], goals)
        if first.after:
            goals = [one.inside(one.middle) for one in places]
            solver.norms([(one.layer.after[0], one.run) for one in places], goals)
        for number in range(len(first.stacks)):
            goals = self._feed_forward(number, places, goals)
        errors = solver.dense(
            [(_there(one.layer.out), one.run) for one in places], [one.whole for one in places]
        )
        for one in places:
            one.run.let_go(_written(one.layer))
            self.theirs.let_go(read(one.layer.site))
        return errors

    def _places(self, layers: Sequence[Layer]) -> list[_Place]:
        """Of several, each is given what the original's is, over fewer texts: as many rows as for one."""
        count = self._count if len(layers) == 1 else -(-self._count // len(layers))
        found = []
        for layer in layers:
            site, run, start = layer.site, self.mine, bare(layer.site.entry).native
            entry = self.theirs.rows(start, count)
            if len(layers) > 1:
                run = self.mine.fork(count)
                run.give(_there(layer.out).stream, self.theirs, start)
            values = [site.wide, site.sums[0], site.middle.root, site.feed_forward.down.input, site.sums[1]]
            found.append(_Place(layer, run, entry, *(self.theirs.rows(v.native, count) for v in values)))
        return found

    def _sum(self, one: _Place) -> Rows:
        """What the sum with the attention stands for."""
        if one.layer.site.last is not None:
            return one.sum
        return [w + s - e for w, s, e in zip(one.wide, one.sum, one.entry, strict=True)]

    def _feed_forward(self, number: int, places: Sequence[_Place], goals: Sequence[Rows]) -> list[Rows]:
        """The next one adds what its neurons gave to where the sum is to stand; where it stands then."""
        solver, first = self._solver, places[0].layer
        if first.before:
            inner = [one.inside(one.middle) for one in places]
            solver.norms([(one.layer.before[number], one.run) for one in places], inner)
        stacks = [one.layer.stacks[number] for one in places]
        both = list(zip(stacks, places, strict=True))
        real = [np.flatnonzero(stack.neurons != NONE) for stack, _, _ in stacks]
        for part in range(len(stacks[0][1])):
            solver.dense(
                [(parts[part], one.run) for (_, parts, _), one in both],
                [_of(stack.wanted[part], one.middle) for (stack, _, _), one in both],
                outputs=real,
            )
        found = []
        for one, (stack, _, _), goal, some in zip(places, stacks, goals, real, strict=True):
            down, neurons = stored(self._teacher, one.layer.site.feed_forward.down), stack.neurons[some]
            (ends,) = one.inside([torch.from_numpy(down.weight.T[neurons])])
            (share,) = one.inside([torch.from_numpy(down.bias[None] / len(one.layer.stacks))])
            more = [active[:, torch.from_numpy(neurons)].double() @ ends + share for active in one.active]
            found.append([g + m for g, m in zip(goal, more, strict=True)])
        solver.dense([(down, one.run) for (_, _, down), one in both], found, inputs=real)
        if first.after:
            solver.norms([(one.layer.after[number + 1], one.run) for one in places], found)
        return found


def _there(one: Dense | None) -> Dense:
    assert one is not None
    return one


def _written(layer: Layer) -> list[Node]:
    """What a fit asks of the narrow program."""
    products = [one for one, _ in layer.qkv]
    products += [one for _, parts, down in layer.stacks for one in (*parts, down)]
    products += [_there(layer.o), _there(layer.out)]
    norms = [one for one, _ in layer.norms] + layer.after + layer.before
    streams = [one.stream for one in products if one.stream is not None]
    return list(dict.fromkeys([*(one.x for one in products), *(one.x for one in norms), *streams]))


def _of(product: Affine, rows: Rows) -> Rows:
    weight, bias = torch.from_numpy(product.weight.T), torch.from_numpy(product.bias)
    return [x.double() @ weight + bias for x in rows]
