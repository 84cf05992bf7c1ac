"""Packing token values to the real tokens, and padding them again, in standard ONNX operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .tokenwise import Axes

TOKENS = "tokens"
Dims = Sequence[int | str | None]


class Packer:
    """The index arithmetic of one mask, and packed or padded forms of values, each made once.

    hides: whether the mask holds something else than zero where it hides a token, not where it keeps one.
    whole: keep every token of a row that begins with padding.

    All of it comes from the mask (batch, length), computed once at the top of the graph:
    kept: (batch, length) bool, the real tokens and the first position of each row;
    places: (tokens,) where each kept token stands in the flattened batch;
    shown: (batch * length,) which kept token each place shows: itself, or the last one before it.
    """

    def __init__(self, graph: ir.Graph, mask: ir.Value, axes: Axes, hides: bool = False, whole: bool = False):
        self.graph, self.mask, self.top = graph, mask, next(iter(graph))
        self.prefix = f"{mask.name}.unpadded"
        self.made: dict[tuple[str, ...], ir.Value] = {}
        batch_length: Dims = [axes.batch, axes.length]
        int64, boolean = ir.DataType.INT64, ir.DataType.BOOL
        zero, one, flat_shape = self.constant(0), self.constant(1), self.constant([-1])
        self.dims = self.emit("Shape", [mask], "dims", int64, [2])
        self.length = self.emit("Gather", [self.dims, one], "length", int64, [], axis=0)
        self.real = self.emit(
            "Cast", [mask], "hidden" if hides else "real", boolean, batch_length, to=boolean
        )
        if hides:
            self.real = self.emit("Not", [self.real], "real", boolean, batch_length)
        positions = self.emit("Range", [zero, self.length, one], "positions", int64, [axes.length])
        first = self.emit("Equal", [positions, zero], "first", boolean, [axes.length])
        self.kept = self.emit(
            "Or", [self.real, first], "or_first" if whole else "kept", boolean, batch_length
        )
        if whole:
            begins = self.emit("Gather", [self.real, zero], "begins", boolean, [axes.batch], axis=1)
            begins = self.emit(
                "Unsqueeze", [begins, self.constant([1])], "begins.column", boolean, [axes.batch, 1]
            )
            late = self.emit("Not", [begins], "late", boolean, [axes.batch, 1])
            self.kept = self.emit("Or", [self.kept, late], "kept", boolean, batch_length)
        flat = self.emit("Reshape", [self.kept, flat_shape], "flat", boolean, [None])
        found = self.emit("NonZero", [flat], "found", int64, [1, TOKENS])
        self.places = self.emit("Reshape", [found, flat_shape], "places", int64, [TOKENS])
        ones = self.emit("Cast", [flat], "ones", int64, [None], to=int64)
        counted = self.emit("CumSum", [ones, zero], "counted", int64, [None])
        self.shown = self.emit("Sub", [counted, one], "shown", int64, [None])

    def packed(self, value: ir.Value, kind: str) -> ir.Value:
        """(batch, length, ...), (1, length, ...) or (batch, 1, ...) as (1, tokens, ...)."""
        key = ("packed", kind, str(value.name))
        if key not in self.made:
            rest = _rest(value)
            after, name = value.producer(), f"{value.name}.packed"
            if kind == "by position":
                index = self._index("Mod")
            else:
                index = self._index("Div") if kind == "by row" else self.places
                shape = self.constant([1, -1, *rest])
                value = self.emit(
                    "Reshape", [value, shape], f"{name}.flat", value.dtype, [1, None, *rest], after
                )
                after = value.producer()
            self.made[key] = self.emit(
                "Gather", [value, index], name, value.dtype, [1, TOKENS, *rest], after, axis=1
            )
        return self.made[key]

    def padded(self, value: ir.Value, fill: str) -> ir.Value:
        """(1, tokens, ...) as (batch, length, ...).

        fill: "last" repeats the last real token (one pass over memory); "zeros" clears all that was not
        computed; "zeros where masked" clears by the mask itself.
        """
        key = ("padded", fill, str(value.name))
        if key not in self.made:
            rest, after = _rest(value), value.producer()
            name, shape = f"{value.name}.padded", [*_dims(self.mask), *_rest(value)]
            if fill == "last":
                target = self._batch_shape(rest)
                flat = self.emit(
                    "Gather",
                    [value, self.shown],
                    f"{name}.flat",
                    value.dtype,
                    [1, None, *rest],
                    after,
                    axis=1,
                )
                padded = self.emit("Reshape", [flat, target], name, value.dtype, shape, flat.producer())
            else:
                last = self.padded(value, "last")
                shown = self._column(
                    self.kept if fill == "zeros" else self.real, fill.replace(" ", "_"), len(rest)
                )
                zero = self.constant(np.zeros((), value.dtype.numpy() if value.dtype else np.float32))
                padded = self.emit(
                    "Where",
                    [shown, last, zero],
                    f"{name}.{fill.replace(' ', '_')}",
                    value.dtype,
                    shape,
                    last.producer(),
                )
            self.made[key] = padded
        return self.made[key]

    def blanked(self, value: ir.Value) -> ir.Value:
        """(batch, length, ...) with zeros in place of the tokens that are not kept."""
        rest = _rest(value)
        zero = self.constant(np.zeros((), value.dtype.numpy() if value.dtype else np.float32))
        shown = self._column(self.kept, "kept", len(rest))
        name, after = f"{value.name}.blanked", value.producer()
        return self.emit("Where", [shown, value, zero], name, value.dtype, _dims(value), after)

    def shape_of(self, value: ir.Value) -> ir.Value:
        """What Shape gave for the padded form of a packed value."""
        return self._batch_shape(_rest(value))

    def constant(self, data: Any) -> ir.Value:
        array = np.asarray(data, np.int64) if not isinstance(data, np.ndarray) else data
        name = f"{self.prefix}.{array.dtype}.{'_'.join(map(str, array.reshape(-1).tolist()))}.{array.ndim}"
        if name not in self.graph.initializers:
            tensor = ir.tensor(array, name=name)
            self.graph.register_initializer(
                ir.Value(
                    name=name,
                    type=ir.TensorType(tensor.dtype),
                    shape=ir.Shape(array.shape),
                    const_value=tensor,
                )
            )
        return self.graph.initializers[name]

    def emit(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        name: str,
        dtype: ir.DataType | None,
        shape: Dims,
        after: ir.Node | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """One new node right after another, or among the index arithmetic at the top."""
        if after is None and not name.startswith(self.prefix):
            name = f"{self.prefix}.{name}"
        attributes = {k: int(v) if isinstance(v, ir.DataType) else v for k, v in attributes.items()}
        node = ir.node(op, inputs, attributes, name=name)
        out = node.outputs[0]
        out.name, out.shape = name, ir.Shape(shape)
        if dtype is not None:
            out.dtype = dtype
        if after is None:
            self.graph.insert_before(self.top, node)
        else:
            self.graph.insert_after(after, node)
        return out

    def _index(self, op: str) -> ir.Value:
        """Each kept token's position in its row (Mod), or its row (Div)."""
        if ("index", op) not in self.made:
            inputs = [self.places, self.length]
            self.made["index", op] = self.emit(op, inputs, op.lower(), ir.DataType.INT64, [TOKENS])
        return self.made["index", op]

    def _batch_shape(self, rest: Dims) -> ir.Value:
        key = ("shape", *map(str, rest))
        if not rest:
            return self.dims
        if key not in self.made:
            inputs, name = [self.dims, self.constant(list(rest))], f"shape.{'x'.join(map(str, rest))}"
            self.made[key] = self.emit("Concat", inputs, name, ir.DataType.INT64, [2 + len(rest)], axis=0)
        return self.made[key]

    def _column(self, mask: ir.Value, name: str, rank: int) -> ir.Value:
        """(batch, length) as (batch, length, 1, ...), to select whole tokens."""
        if rank == 0:
            return mask
        key = ("column", name)
        if key not in self.made:
            axes, shape = self.constant(list(range(2, 2 + rank))), [*_dims(mask), *[1] * rank]
            self.made[key] = self.emit("Unsqueeze", [mask, axes], f"{name}.column", ir.DataType.BOOL, shape)
        return self.made[key]


def _dims(value: ir.Value) -> list[int | str | None]:
    assert value.shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def _rest(value: ir.Value) -> list[int | str | None]:
    """The feature axes, after batch and length."""
    return _dims(value)[2:]
