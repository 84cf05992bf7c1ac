"""Weights in another form in the place of float ones: packed where a use can take that, else decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ....ir.onnx.graph import Editor, prune
from .decode import FLOAT, HALF, Decoder
from .stored import StoredWeight, WeightUse

_TYPES = {"float32": FLOAT, "float16": HALF}


class Form(Protocol):
    """One weight as a graph stores it. What it gives are new values; None where only `whole` will do."""

    def product(self, x: ir.Value, node: ir.Node, dtype: ir.DataType) -> ir.Value | None:
        """x W^T, without bias, computed in a type in the place of a node."""

    def lookup(self, ids: ir.Value, rank: int | None, node: ir.Node) -> ir.Value | None:
        """Rows, in the weight's own type, in the place of a node."""

    def whole(self) -> ir.Value:
        """The weight in its own type, (rows, columns), made from weights alone."""


def repack(
    model: ir.Model, weights: Sequence[tuple[StoredWeight, Callable[[Decoder], Form]]]
) -> Counter[str]:
    """Rewrite a graph in place; counts the uses that read packed weights, and the weights decoded for others.

    Args:
        weights: what is stored, and what stores its form.
    """
    counts: Counter[str] = Counter()
    if not weights:
        return counts
    editor = Editor(model)
    decoder = Decoder(editor)
    forms = [(stored, make(decoder)) for stored, make in weights]
    for stored, form in forms:
        for use in stored.uses:
            if use.kind == "product" and _product(editor, stored, use, form):
                counts["products of packed weights"] += 1
            elif use.kind == "lookup" and _lookup(editor, use, form):
                counts["lookups of packed rows"] += 1
    prune(editor.graph)  # what read the floats; initializers stay, some are yet to be used
    decoder.start = editor.graph[0]
    for stored, form in forms:
        if stored.value.uses():  # by what reads floats: other layouts, kernels, and nodes that nobody knows
            editor.replace(stored.value, _shaped(decoder, stored, form.whole()))
            counts["weights decoded in the graph"] += 1
    editor.prune()
    return counts


def _product(editor: Editor, stored: StoredWeight, use: WeightUse, form: Form) -> bool:
    node, root = use.node, use.node.outputs[0]
    x, dtype = node.inputs[0], _TYPES.get(use.dtype or "float32")
    if x is None or dtype is None or use.transposed != stored.rows:
        return False
    y = form.product(x, node, dtype)
    if y is None:
        return False
    y.type, y.shape = root.type, root.shape
    bias = node.inputs[2] if len(node.inputs) > 2 else None  # Gemm's
    if bias is not None:
        y = editor.node("Add", [y, bias], f"{root.name}.bias", before=node, like=root).outputs[0]
    editor.replace(root, y)
    return True


def _lookup(editor: Editor, use: WeightUse, form: Form) -> bool:
    node, root = use.node, use.node.outputs[0]
    assert use.other is not None
    y = form.lookup(use.other, use.rank, node)
    if y is None:
        return False
    y.type, y.shape = root.type, root.shape
    editor.replace(root, y)
    return True


def _shaped(decoder: Decoder, stored: StoredWeight, floats: ir.Value) -> ir.Value:
    """(rows, columns) laid out as the weight was."""
    name, shape = stored.name, tuple(stored.tensor.shape.numpy())
    if not stored.rows:
        floats = decoder.early("Transpose", [floats], f"{name}.turned", {"perm": [1, 0]})
    if len(shape) != 2:
        target = decoder.constant("shape." + ".".join(map(str, shape)), np.array(shape, np.int64))
        floats = decoder.early("Reshape", [floats, target], f"{name}.shaped")
    floats.type, floats.shape = ir.TensorType(stored.tensor.dtype), ir.Shape(shape)
    return floats
