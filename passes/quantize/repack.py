"""Putting packed weights in the place of float ones: kernels where there are some, decoding elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...ir.onnx import Editor, prune
from .decode import FLOAT, HALF, Decoder, Packed
from .nbits import looks_up, lookup, multiplies, product
from .rounding import Coded
from .stored import Stored, Use

_TYPES = {"float32": FLOAT, "float16": HALF}


def repack(model: ir.Model, weights: Sequence[tuple[Stored, Coded]], compute: str) -> Counter[str]:
    """Rewrite a graph in place; how many uses went to which kernel, or are decoded.

    Args:
        weights: what is stored, and its codes (out, in) or (rows, features).
        compute: "float" or "int8" (what MatMulNBits computes in), or "decode" (standard operators alone).
    """
    counts: Counter[str] = Counter()
    if not weights:
        return counts
    editor = Editor(model)
    decoder = Decoder(editor)
    kept = [(stored, _Uses(decoder, stored, coded, compute, counts).write()) for stored, coded in weights]
    prune(editor.graph)  # what read the floats; initializers stay, some are yet to be used
    decoder.start = editor.graph[0]
    for stored, packed in kept:
        if stored.value.uses():  # by what reads floats: other layouts, kernels, and nodes that nobody knows
            _decoded(decoder, stored, packed)
            counts["weights decoded in the graph"] += 1
    editor.prune()
    return counts


class _Uses:
    """The uses of one weight that read it packed."""

    def __init__(
        self, decoder: Decoder, stored: Stored, coded: Coded, compute: str, counts: Counter[str]
    ) -> None:
        self.decoder, self.editor, self.stored = decoder, decoder.editor, stored
        self.compute, self.counts = compute, counts
        fractions, columns = coded.zero.dtype.kind == "f", coded.codes.shape[1]
        self.multiplied = compute != "decode" and multiplies(coded.bits, coded.group, fractions)
        self.looked_up = (
            compute != "decode"
            and not fractions
            and columns % coded.group == 0
            and looks_up(coded.bits, coded.group)
        )
        flat = self.looked_up and any(use.kind == "lookup" for use in stored.uses)
        self.packed = decoder.store(coded, stored.name, flat)

    def write(self) -> Packed:
        for use in self.stored.uses:
            if use.kind == "product" and self.multiplied:
                self._product(use)
            elif use.kind == "lookup":
                self._lookup(use)
        return self.packed

    def _product(self, use: Use) -> None:
        node, root = use.node, use.node.outputs[0]
        dtype = _TYPES.get(use.dtype or "float32")
        x = node.inputs[0]
        if dtype is None or use.transposed != self.stored.rows or x is None:
            return
        y = product(self.decoder, self.packed, x, node, f"{root.name}.packed", self.compute, dtype)
        y.type, y.shape = root.type, root.shape
        if len(node.inputs) > 2 and node.inputs[2] is not None:  # Gemm's
            y = self.editor.node(
                "Add", [y, node.inputs[2]], f"{root.name}.bias", before=node, like=root
            ).outputs[0]
        self.editor.replace(root, y)
        self.counts["products of packed weights"] += 1

    def _lookup(self, use: Use) -> None:
        node, root, ids = use.node, use.node.outputs[0], use.other
        assert ids is not None
        dtype = self.stored.tensor.dtype
        if self.looked_up:
            y = lookup(self.decoder, self.packed, ids, node, f"{root.name}.packed", dtype)
        elif use.rank is not None:
            y = self.decoder.floats(self.packed, str(root.name), node, ids, use.rank, dtype)
        else:
            return
        y.type, y.shape = root.type, root.shape
        self.editor.replace(root, y)
        self.counts["lookups of packed rows"] += 1


def _decoded(decoder: Decoder, stored: Stored, packed: Packed) -> None:
    """The float weight, shaped as it was, computed from the packed one."""
    name, tensor = stored.name, stored.tensor
    found = decoder.floats(packed, name, decoder.start, dtype=tensor.dtype)
    if not stored.rows:
        found = decoder.early("Transpose", [found], f"{name}.turned", {"perm": [1, 0]})
    shape = tuple(tensor.shape.numpy())
    if len(shape) != 2:
        target = decoder.constant("shape." + ".".join(map(str, shape)), np.array(shape, np.int64))
        found = decoder.early("Reshape", [found, target], f"{name}.shaped")
    found.type, found.shape = ir.TensorType(tensor.dtype), ir.Shape(shape)
    decoder.editor.replace(stored.value, found)
