"""Narrow layers fitted one after the other, each on what the fitted ones before it really give.

The original and the narrow program are run over the same texts in step. Every product is moved by least
squares to where what it adds brings its sum nearest to what stands there in the original, in the coordinates
of the bottleneck; norms likewise, feature by feature; the last product of a layer towards the stream itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.fx import Node

from ....ir.blocks.walk import bare
from ....ir.fx.graph import attribute, set_attribute
from ....ir.program import Program
from ...common.outputs import distance
from ...common.surgeon import Moments, Surgeon
from ...manager.contract import Feed
from ..layers.scales import Scales, normalised
from ..low_rank.tables import like
from .hand import Dense, Scaled
from .run import Rows, Run, read
from .start import Affine
from .weights import NONE, stored
from .write import Layer

DAMPING = 1e-3


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
    errors = []
    for number, layer in enumerate(layers):
        progress("fitting narrow layers", number, len(layers))
        errors.append(fitting.layer(layer))
    wanted, got = fitting.theirs.outputs(), fitting.mine.outputs()
    return errors, distance(teacher, feeds, wanted, got)


class _Fitting:
    def __init__(
        self, student: Program, teacher: Program, layers: Sequence[Layer], feeds: Sequence[Feed]
    ) -> None:
        self.mine = Run(student, feeds, [node for layer in layers for node in _written(layer)])
        self.theirs = Run(teacher, feeds, [node for layer in layers for node in read(layer.site)])
        self._graphs = {student.graph, self.mine.live.graph}
        self._teacher, self._done = teacher.graph, set[str]()

    def layer(self, layer: Layer) -> float:
        """Fits one layer; how far it is from what it was to add."""
        site, basis = layer.site, torch.from_numpy(layer.narrow.basis)
        entry, wide, sum_, middle = (
            self.theirs.rows(node)
            for node in (
                bare(site.entry).native,
                site.wide.native,
                site.sums[0].native,
                site.middle.root.native,
            )
        )
        for norm, weight in layer.norms:
            self._norm(norm, _of(Affine(weight, np.zeros(len(weight))), wide))
        for one, product in layer.qkv:
            self._dense(one, _of(product, wide))
        pre = site.last is None
        # In the coordinates of the bottleneck: where the original's sums stand.
        goal = [(w + s - e if pre else s).double() @ basis for w, s, e in zip(wide, sum_, entry, strict=True)]
        assert layer.o is not None
        self._dense(layer.o, goal)
        inner = [x.double() @ basis for x in middle]
        if not pre:
            self._norm(layer.after[0], inner)
            goal = inner
        self._feed_forwards(layer, goal, inner, middle)
        assert layer.out is not None
        error = self._dense(layer.out, self.theirs.rows(site.sums[1].native))
        self.mine.let_go(_written(layer))
        self.theirs.let_go(read(site))
        return error

    def _feed_forwards(self, layer: Layer, goal: Rows, inner: Rows, middle: Rows) -> None:
        """One after the other, each adding what its neurons gave to where the sum was to stand."""
        site, basis = layer.site, torch.from_numpy(layer.narrow.basis)
        down = stored(self._teacher, site.feed_forward.down)
        ends = torch.from_numpy(down.weight.T) @ basis
        share = torch.from_numpy(down.bias) @ basis / len(layer.stacks)
        active = self.theirs.rows(site.feed_forward.down.input.native)
        for number, (stack, parts, joins) in enumerate(layer.stacks):
            if layer.before:
                self._norm(layer.before[number], inner)
            real = np.flatnonzero(stack.neurons != NONE)
            neurons = torch.from_numpy(stack.neurons[real])
            for one, product in zip(parts, stack.wanted, strict=True):
                self._dense(one, _of(product, middle), outputs=real)
            gives = [a[:, neurons].double() @ ends[neurons] + share for a in active]
            goal = [g + more for g, more in zip(goal, gives, strict=True)]
            self._dense(joins, goal, inputs=real)
            if layer.after:
                self._norm(layer.after[number + 1], goal)

    def _dense(
        self,
        one: Dense,
        targets: Rows,
        *,
        inputs: np.ndarray | None = None,
        outputs: np.ndarray | None = None,
    ) -> float:
        """Least squares towards what a product, and the stream it goes into, are to give.

        Args:
            inputs, outputs: those of its features that are fitted; all where nothing is given.
        """
        read = self.mine.rows(one.x)
        stream = self.mine.rows(one.stream) if one.stream is not None else None
        weight = attribute(self.mine.live.graph, one.weight).detach().double().numpy().T.copy()
        bias = (
            attribute(self.mine.live.graph, one.bias).detach().double().numpy().copy() if one.bias else None
        )
        rows = np.arange(len(weight)) if inputs is None else inputs
        columns = np.arange(weight.shape[1]) if outputs is None else outputs
        moments = Moments.none()
        for place, (x, target) in enumerate(zip(read, targets, strict=True)):
            rest = target - stream[place] if stream is not None else target
            moments = moments.plus(x[:, rows], rest[:, columns], constant=bias is not None)
        old = weight[np.ix_(rows, columns)]
        old = old if bias is None else np.concatenate([old, bias[None, columns]])
        if not len(rows) or not len(columns):
            return 0.0
        if one.weight in self._done:
            return moments.error(old)
        new = Surgeon(moments, old, damping=DAMPING).fitted()
        weight[np.ix_(rows, columns)] = new[: len(rows)]
        if bias is not None:
            bias[columns] = new[-1]
            self._put(one.bias, bias)
        self._put(one.weight, weight.T)
        return moments.error(new)

    def _norm(self, one: Scaled, targets: Rows) -> None:
        """Scale and shift, feature by feature."""
        read = self.mine.rows(one.x)
        if not one.weight or one.weight in self._done:
            return
        found = Scales(read[0].shape[-1], bool(one.bias))
        for x, target in zip(read, targets, strict=True):
            found.add(normalised(one.kind, x), target)
        old = [
            attribute(self.mine.live.graph, path).detach().double().numpy()
            for path in (one.weight, one.bias)
            if path
        ]
        scale, shift = found.fitted(old[0], old[1] if one.bias else np.zeros(1), DAMPING)
        self._put(one.weight, scale)
        if one.bias:
            self._put(one.bias, shift)

    def _put(self, path: str, new: np.ndarray) -> None:
        self._done.add(path)
        for graph in self._graphs:
            set_attribute(graph, path, like(attribute(graph, path), new))


def _written(layer: Layer) -> list[Node]:
    """What a fit asks of the narrow program."""
    products = [one for one, _ in layer.qkv] + [
        one for _, parts, down in layer.stacks for one in (*parts, down)
    ]
    products += [one for one in (layer.o, layer.out) if one is not None]
    norms = [one for one, _ in layer.norms] + layer.after + layer.before
    streams = [one.stream for one in products if one.stream is not None]
    return list(dict.fromkeys([*(one.x for one in products), *(one.x for one in norms), *streams]))


def _of(product: Affine, rows: Rows) -> Rows:
    weight, bias = torch.from_numpy(product.weight.T), torch.from_numpy(product.bias)
    return [x.double() @ weight + bias for x in rows]
