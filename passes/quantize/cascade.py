"""A graph run piece by piece over all calibration feeds, weights changing as it goes.

GPTQ quantizes a layer for the activations that the layers before it give once *they* are quantized
(arXiv:2210.17323, section 4). Running the whole model anew for every layer would take time quadratic in its
depth; here each node runs once. Between pieces only the values that later nodes read are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from ...ir.execute import stream_onnx
from ...ir.onnx import outer_values
from ...ir.program import Program
from ..base import Feed


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
            for value in _read(node):
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
        model = _piece(
            nodes, self._states[0] if self._states else {}, kept, self._weights(nodes), self._model
        )
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
        for value in (v for node in nodes for v in _read(node)):
            name = str(value.name)
            if name in self._changed:
                found[name] = ir.Tensor(self._changed[name], name=name)
            elif value.is_initializer() and value.const_value is not None:
                found[name] = value.const_value
        return found


def _read(node: ir.Node) -> list[ir.Value]:
    """What a node takes, its subgraphs included."""
    return [v for v in (*node.inputs, *outer_values(node)) if v is not None]


def _piece(
    nodes: list[ir.Node],
    state: Mapping[str, np.ndarray],
    kept: list[str],
    weights: Mapping[str, ir.TensorProtocol],
    model: ir.Model,
) -> ir.Model:
    """Some nodes in a row as a model, values linked by name."""
    inputs = sorted({str(v.name) for node in nodes for v in _read(node)} & state.keys() - weights.keys())
    proto = onnx.helper.make_graph(
        [ir.serde.serialize_node(node) for node in nodes],
        "piece",
        [
            *(
                onnx.helper.make_tensor_value_info(n, _element(state[n]), [None] * state[n].ndim)
                for n in inputs
            ),
            *(
                onnx.helper.make_tensor_value_info(n, int(t.dtype), t.shape.numpy())
                for n, t in weights.items()
            ),
        ],
        [onnx.helper.make_empty_tensor_value_info(name) for name in kept],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    piece = ir.from_proto(onnx.helper.make_model(proto, opset_imports=opsets, ir_version=model.ir_version))
    for value in [v for v in piece.graph.inputs if v.name in weights]:
        piece.graph.inputs.remove(value)
        value.const_value = weights[str(value.name)]
        piece.graph.register_initializer(value)
    return piece


def _element(array: np.ndarray) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
