"""Packed weights turned into floats inside the graph, with operators that every ONNX runtime has.

Codes: each byte is looked up in a table (packing.py), so Cast, Gather and Reshape unpack it; two planes are
added. Rows of an embedding table are gathered while they are still packed, so only those that a call asks
for are decoded. A whole weight depends on no input: ONNX Runtime decodes it once, when it loads the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from ....ir.onnx.graph import Editor
from .packing import planes, table

FLOAT, HALF, INT32 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT32
OLDEST_OPSET = 11  # the first with all that is used here


class Decoder:
    """Writes decoding nodes into a graph. Tables and shapes are shared by all weights.

    Args:
        editor: of the graph to write into.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        # What depends on weights alone goes before this node.
        self.start = editor.graph[0] if len(editor.graph) else None
        self._constants: dict[str, ir.Value] = {}
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def planes(self, arrays: Sequence[np.ndarray], name: str) -> tuple[ir.Value, ...]:
        """The initializers of packed codes."""
        suffixes = [""] if len(arrays) == 1 else [".low", ".high"]
        return tuple(self.editor.initializer(a, name + s) for a, s in zip(arrays, suffixes, strict=True))

    def constant(self, name: str, data: np.ndarray) -> ir.Value:
        if name not in self._constants:
            self._constants[name] = self.editor.initializer(data, f"decode.{name}")
        return self._constants[name]

    def early(
        self, operator: str, inputs: Sequence[ir.Value], name: str, attrs: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """A node on weights."""
        return self.editor.node(operator, inputs, name, before=self.start, attrs=attrs).outputs[0]

    def cast(self, weight: ir.Value, to: ir.DataType) -> ir.Value:
        """A weight in another type, once however often it is asked for."""
        if weight.dtype == to:
            return weight
        if (weight, to) not in self._casts:
            name = f"{weight.name}.{to.name.lower()}"
            self._casts[weight, to] = self.early("Cast", [weight], name, {"to": int(to)})
        return self._casts[weight, to]


class DecodeWriter:
    """The nodes of one decode, each named after the weight.

    Args:
        before: the node that they stand before; None for the end of the graph.
        ids: which rows of the weight are decoded; None for all of them.
        rank: of ids; 1 without.
    """

    def __init__(
        self, decoder: Decoder, name: str, before: ir.Node | None, ids: ir.Value | None, rank: int
    ) -> None:
        self.decoder, self.name, self.before = decoder, name, before
        self.ids, self.rank = ids, rank

    def __call__(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        attrs: Mapping[str, Any] | None = None,
        like: ir.Value | None = None,
    ) -> ir.Value:
        """A node; its result has the type of another value where it is given."""
        name = f"{self.name}.{operator.lower()}"
        node = self.decoder.editor.node(operator, inputs, name, before=self.before, attrs=attrs)
        if like is not None:
            node.outputs[0].type = like.type
        return node.outputs[0]

    def cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        if value.dtype == to:
            return value
        found = self("Cast", [value], {"to": int(to)})
        found.type = ir.TensorType(to)
        return found

    def rows(self, value: ir.Value) -> ir.Value:
        """The rows asked for."""
        return value if self.ids is None else self("Gather", [value, self.ids], {"axis": 0}, like=value)

    def unpacked(
        self, packed: Sequence[ir.Value], bits: int, shape: tuple[int, ...], dtype: ir.DataType = FLOAT
    ) -> ir.Value:
        """Codes as numbers of a type, those of each row in the given shape."""
        parts: list[ir.Value] = []
        low = 0
        for plane, width in zip(packed, planes(bits), strict=True):
            assert plane.shape is not None
            held = prod(plane.shape.numpy()[1:]) * 8 // width
            part = self.rows(plane)
            if width == 8:
                part = self.cast(part, dtype)
            else:
                values = (np.arange(2**width) << low).astype(dtype.numpy())
                name = f"bits.{low}.{low + width}.{dtype.name.lower()}"
                looked_up = self.decoder.constant(name, table(width, values))
                part = self("Gather", [looked_up, self.cast(part, INT32)], {"axis": 0})
            if held == prod(shape):
                part = self.reshaped(part, shape)
            else:  # spare bits at the end of each row
                part = self.first(self.reshaped(part, (held,)), shape[-1], held)
            parts.append(part)
            low += width
        return parts[0] if len(parts) == 1 else self("Add", parts)

    def reshaped(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """Other axes behind those of the rows."""
        target = (*[0] * self.rank, *shape)
        name = "shape." + ".".join(map(str, target))
        return self("Reshape", [value, self.decoder.constant(name, np.array(target, np.int64))], like=value)

    def first(self, value: ir.Value, count: int, of: int) -> ir.Value:
        """The first so many along the last axis."""
        if count == of:
            return value
        bounds = [self.decoder.constant(f"index.{n}", np.array([n], np.int64)) for n in (0, count, -1)]
        return self("Slice", [value, *bounds], like=value)
