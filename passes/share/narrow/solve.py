"""Least squares for products and norms that were written, over what several places of their use are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch.fx import GraphModule

from ....ir.fx.graph import attribute, set_attribute
from ...common.surgeon import Moments, Surgeon
from ..layers.scales import Scales, normalised
from ..low_rank.tables import like
from .hand import Dense, Scaled
from .run import Rows, Run

DAMPING = 1e-3
Places = np.ndarray | None  # features that are fitted; None: all


class Solver:
    """Every parameter is fitted once, where it is come to first.

    Args:
        graphs: that parameters are put into; the first is read.
    """

    def __init__(self, graphs: Sequence[GraphModule]) -> None:
        self._graphs = graphs
        self._done: set[str] = set()

    def dense(
        self,
        ones: Sequence[tuple[Dense, Run]],
        targets: Sequence[Rows],
        inputs: Sequence[Places] | None = None,
        outputs: Sequence[Places] | None = None,
    ) -> list[float]:
        """Least squares towards what products, and the stream that each goes into, are to give.

        Args:
            ones: products, each with what is run up to it; those of one weight are fitted together.
            inputs, outputs: of each, the features that are fitted.

        Returns:
            Of each, how far it is from that, |difference|^2 / |wanted of the product|^2.
        """
        errors = [0.0] * len(ones)
        for numbers in _alike([one.weight for one, _ in ones]):
            some = [inputs[numbers[0]] if inputs else None, outputs[numbers[0]] if outputs else None]
            error = self._dense([(*ones[n], targets[n]) for n in numbers], some[0], some[1])
            for number in numbers:
                errors[number] = error
        return errors

    def norms(self, ones: Sequence[tuple[Scaled, Run]], targets: Sequence[Rows]) -> None:
        """Scale and shift, feature by feature."""
        for numbers in _alike([one.weight for one, _ in ones]):
            self._norm([(*ones[n], targets[n]) for n in numbers])

    def _dense(self, ones: Sequence[tuple[Dense, Run, Rows]], inputs: Places, outputs: Places) -> float:
        first = ones[0][0]
        weight = self._numbers(first.weight).T.copy()
        bias = self._numbers(first.bias).copy() if first.bias else None
        rows = np.arange(len(weight)) if inputs is None else inputs
        columns = np.arange(weight.shape[1]) if outputs is None else outputs
        moments = Moments.none()
        for one, run, targets in ones:
            read = run.rows(one.x)
            streams = run.rows(one.stream) if one.stream is not None else [None] * len(read)
            for x, stream, target in zip(read, streams, targets, strict=True):
                rest = target if stream is None else target - stream
                moments = moments.plus(x[:, rows], rest[:, columns], constant=bias is not None)
        old = weight[np.ix_(rows, columns)]
        old = old if bias is None else np.concatenate([old, bias[None, columns]])
        if not old.size:
            return 0.0
        if first.weight in self._done:
            return moments.error(old)
        new = Surgeon(moments, old, damping=DAMPING).fitted()
        weight[np.ix_(rows, columns)] = new[: len(rows)]
        if bias is not None:
            bias[columns] = new[-1]
            self._put(first.bias, bias)
        self._put(first.weight, weight.T)
        return moments.error(new)

    def _norm(self, ones: Sequence[tuple[Scaled, Run, Rows]]) -> None:
        first = ones[0][0]
        pairs = [
            (normalised(one.kind, x), target)
            for one, run, targets in ones
            for x, target in zip(run.rows(one.x), targets, strict=True)
        ]
        if not first.weight or first.weight in self._done:
            return
        found = Scales(pairs[0][0].shape[-1], bool(first.bias))
        for x, target in pairs:
            found.add(x, target)
        shift = self._numbers(first.bias) if first.bias else np.zeros(1)
        scale, shift = found.fitted(self._numbers(first.weight), shift, DAMPING)
        self._put(first.weight, scale)
        if first.bias:
            self._put(first.bias, shift)

    def _numbers(self, path: str) -> np.ndarray:
        found: np.ndarray = attribute(self._graphs[0], path).detach().double().numpy()
        return found

    def _put(self, path: str, new: np.ndarray) -> None:
        self._done.add(path)
        for graph in self._graphs:
            set_attribute(graph, path, like(attribute(graph, path), new))


def _alike(paths: Iterable[str]) -> list[list[int]]:
    """The numbers of those that are equal, together."""
    found: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        found.setdefault(path, []).append(number)
    return list(found.values())
