"""A graph run piece by piece over all calibration feeds, weights changing as it goes.

GPTQ quantizes a layer for the activations that the layers before it give once *they* are quantized
(arXiv:2210.17323, section 4). Running the whole model anew for every layer would take time quadratic in its
depth; here each node runs once. Between pieces only the values that later nodes read are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from ...ir.onnx.execute import stream_onnx
from ...ir.program import Program
from ..manager.contract import Feed
from .piece import piece, read


class Cascade:
    """The state of a run over some feeds, at a point between two nodes.

    Args:
        program: of the onnx dialect; it is only read.
        feeds: held, with the values alive at the current point, until `before` moves on.
    """

    def __init__(self, program: Program, feeds: Iterable[Feed], threads: int) -> None:
        self._model, self._threads = program.graph, threads
        self._nodes = list(program.graph.graph)
        self._place = {node: number for number, node in enumerate(self._nodes)}
        self._at = 0
        self._changed: dict[str, np.ndarray] = {}
        self._states: list[dict[str, np.ndarray]] = [dict(feed) for feed in feeds]
        self._last: dict[str, int] = {}
        for number, node in enumerate(self._nodes):
            for value in read(node):
                self._last[str(value.name)] = number

    def place(self, node: ir.Node) -> int:
        """Where a node stands in the order of the run."""
        return self._place[node]

    def change(self, weight: ir.Value, array: np.ndarray) -> None:
        """From here on nodes read other numbers for a weight, (its shape)."""
        self._changed[str(weight.name)] = array

    def before(self, node: ir.Node, value: ir.Value) -> Iterator[np.ndarray]:
        """What a value that the node reads is, for each feed, all nodes before it having run.

        Args:
            node: not before the one asked for last.
        """
        end = self._place[node]
        if end > self._at:
            self._advance(end)
        yield from (state[str(value.name)] for state in self._states)

    def _advance(self, end: int) -> None:
        nodes = self._nodes[self._at : end]
        made = {str(v.name) for node in nodes for v in node.outputs if v.name}
        kept = [name for name in made if self._last.get(name, -1) >= end]
        kept.sort()
        self._at = end
        model = piece(nodes, self._states[0] if self._states else {}, kept, self._weights(nodes), self._model)
        needed = {str(value.name) for value in model.graph.inputs}
        feeds = ({name: state[name] for name in needed} for state in self._states)
        results: Iterable[dict[str, np.ndarray]] = (
            stream_onnx(model, kept, feeds, self._threads) if kept else ({} for _ in self._states)
        )
        for state, found in zip(self._states, results, strict=True):
            state.update(found)
            for name in [name for name in state if self._last.get(name, -1) < end]:
                del state[name]

    def _weights(self, nodes: list[ir.Node]) -> dict[str, ir.TensorProtocol]:
        found: dict[str, ir.TensorProtocol] = {}
        for value in (v for node in nodes for v in read(node)):
            name = str(value.name)
            if name in self._changed:
                found[name] = ir.Tensor(self._changed[name], name=name)
            elif value.is_initializer() and value.const_value is not None:
                found[name] = value.const_value
        return found
