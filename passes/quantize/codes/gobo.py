"""GOBO's dictionary in a graph: codes look their centroid up, and outliers are scattered over them.

A whole weight lists the place of each outlier. A table of which rows are looked up lists how many outliers
each row has, and the column of each, so that only those of the rows asked for are placed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from .centroids import Dictionary
from .decode import INT32, Decoder, DecodeWriter
from .packing import pack
from .stored import StoredWeight


def gobo_form(stored: StoredWeight, found: Dictionary) -> Callable[[Decoder], GoboForm]:
    """What stores a dictionary for `repack`."""
    return lambda decoder: GoboForm(decoder, stored, found)


class GoboForm:
    """A Form (repack.py) of a dictionary."""

    def __init__(self, decoder: Decoder, stored: StoredWeight, found: Dictionary) -> None:
        self.decoder, self.name, self.bits = decoder, stored.name, found.bits
        self.dtype, self.shape = stored.tensor.dtype, found.codes.shape
        by_rows = any(use.kind == "lookup" for use in stored.uses)
        # One column more, where outliers go that a row does not have.
        codes = np.pad(found.codes, ((0, 0), (0, 1))) if by_rows else found.codes
        self.held = codes.shape[1]
        make = decoder.editor.initializer
        self.codes = decoder.planes(pack(codes, found.bits), f"{stored.name}.codes")
        self.centroids = make(found.centroids, f"{stored.name}.centroids")
        self.values: ir.Value | None = None
        self.counts: ir.Value | None = None
        if found.values.size:
            self.values = make(found.values, f"{stored.name}.outliers")
            places = np.flatnonzero(found.outliers).astype(np.int32)
            if by_rows:
                counts, places = found.outliers.sum(axis=1), _narrow(places % found.outliers.shape[1])
                self.most = int(counts.max())
                self.counts = make(_narrow(counts), f"{stored.name}.outliers.count")
            self.places = make(places, f"{stored.name}.outliers.place")

    def product(self, x: ir.Value, node: ir.Node, dtype: ir.DataType) -> ir.Value | None:
        return None

    def lookup(self, ids: ir.Value, rank: int | None, node: ir.Node) -> ir.Value | None:
        if rank is None:
            return None
        return self._decoded(DecodeWriter(self.decoder, str(node.outputs[0].name), node, ids, rank))

    def whole(self) -> ir.Value:
        return self._decoded(DecodeWriter(self.decoder, self.name, self.decoder.start, None, 1))

    def _decoded(self, write: DecodeWriter) -> ir.Value:
        codes = write.unpacked(self.codes, self.bits, (self.held,), INT32)
        found = write("Gather", [self.centroids, codes], {"axis": 0}, like=self.centroids)
        if self.values is not None:
            counts = self.counts
            found = self._flat(write, found) if counts is None else self._by_row(write, found, counts)
        found = write.first(found, self.shape[1], self.held)
        return write.cast(found, self.dtype)

    def _flat(self, write: DecodeWriter, found: ir.Value) -> ir.Value:
        line = self.decoder.constant("shape.all", np.array([-1], np.int64))
        assert self.values is not None
        flat = write("Reshape", [found, line], like=found)
        placed = write("ScatterElements", [flat, self.places, self.values], {"axis": 0}, like=found)
        back = self.decoder.constant("shape.{}.{}".format(*self.shape), np.array(self.shape, np.int64))
        return write("Reshape", [placed, back], like=found)

    def _by_row(self, write: DecodeWriter, found: ir.Value, counts: ir.Value) -> ir.Value:
        """A row's outliers stand one after the other from its start; a row with fewer than the most puts the
        others into the spare column."""
        constant, values = self.decoder.constant, self.values
        assert values is not None
        axis, nowhere = constant("axis.0", np.array(0, np.int64)), constant("none", np.array(0, np.int32))
        spare = constant(f"column.{self.shape[1]}", np.array(self.shape[1], np.int32))
        steps = constant(f"first.{self.most}", np.arange(self.most, dtype=np.int32))
        counts = write.cast(counts, INT32)
        starts = write("CumSum", [counts, axis], {"exclusive": 1}, like=counts)
        start, count = (write.reshaped(write.rows(v), (1,)) for v in (starts, counts))
        there = write("Less", [steps, count])
        index = write("Where", [there, write("Add", [start, steps]), nowhere])
        column = write.cast(write("Gather", [self.places, index], {"axis": 0}, like=self.places), INT32)
        column = write("Where", [there, column, spare])
        value = write("Gather", [values, index], {"axis": 0}, like=values)
        return write("ScatterElements", [found, column, value], {"axis": -1}, like=found)


def _narrow(numbers: np.ndarray) -> np.ndarray:
    """Counts or columns in as few bytes as they need."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
