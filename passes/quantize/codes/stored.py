"""Weight matrices as they are stored, and everything that uses each of them.

A weight may be shared: by layers (ALBERT), or by a table and the output head. It is packed once, so its uses
are found together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from ....ir.blocks.base import Linear
from ....ir.blocks.linear import linears
from ....ir.blocks.walk import Statics
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view

SMALLEST = 16  # rows or columns: below, scales and zeros take what the small integers save
_FEW = 64  # bytes: fewer integers are no weight
_CODES = {ir.DataType[f"{sign}INT{bits}"] for sign in ("", "U") for bits in (2, 4, 8)}
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
# Operators that take whole tables or packed weights, and at which inputs.
_WHOLE = {("com.microsoft", "Attention"): (1,), ("com.microsoft", "EmbedLayerNormalization"): (2, 3, 4)}


@dataclass(frozen=True)
class WeightUse:
    """One node that a weight enters.

    kind: "product" (x W, a MatMul or Gemm), "attention" (x W inside ONNX Runtime's Attention), "convolution"
    (over single positions), "lookup" (rows of a table) or "table" (a kernel that takes the whole table).
    other: what enters beside the weight: the activation, or the ids.
    transposed: the use reads the weight as (out, in).
    dtype: what it computes in. rank: of the ids, if it is known.
    """

    node: ir.Node
    kind: Literal["product", "attention", "convolution", "lookup", "table"]
    other: ir.Value | None
    transposed: bool = True
    dtype: str | None = None
    rank: int | None = None


@dataclass
class StoredWeight:
    """A float weight and all its uses, in topological order.

    rows: the stored tensor's first axis is what is looked up or comes out, so that groups of the features
    that are summed over run along the last axis; else it is turned first.
    groups: of the convolution, whose blocks of features do not see each other.
    """

    value: ir.Value
    uses: list[WeightUse] = field(default_factory=list)
    groups: int = 1

    @property
    def name(self) -> str:
        return str(self.value.name)

    @property
    def rows(self) -> bool:
        return self.uses[0].transposed

    @property
    def products(self) -> list[WeightUse]:
        """Uses that sum over the features of an activation."""
        return [use for use in self.uses if use.kind in ("product", "attention", "convolution")]

    @property
    def table(self) -> bool:
        """Whether rows of it are looked up, or it is nothing but a table."""
        return any(use.kind in ("lookup", "table") for use in self.uses)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in), or (rows, features)."""
        sizes = tuple(self.tensor.shape.numpy())[:2]
        return (sizes[0], sizes[1]) if self.rows else (sizes[1], sizes[0])

    @property
    def tensor(self) -> ir.TensorProtocol:
        tensor = self.value.const_value
        assert tensor is not None
        return tensor

    def matrix(self) -> np.ndarray:
        """The weight, float32 (out, in) or (rows, features): read now, and not kept."""
        array = self.tensor.numpy()
        array = array.reshape(array.shape[:2])
        return np.ascontiguousarray(array if self.rows else array.T, np.float32)

    def restored(self, matrix: np.ndarray) -> np.ndarray:
        """A matrix as `matrix` gives it, laid out and typed as the stored tensor."""
        turned = matrix if self.rows else matrix.T
        return turned.reshape(tuple(self.tensor.shape.numpy())).astype(self.tensor.dtype.numpy(), copy=False)


def find(program: Program) -> tuple[list[StoredWeight], list[str]]:
    """Every float weight of products and lookups, by its first use, and a sentence for each miss."""
    found: dict[ir.Value, StoredWeight] = {}
    misses: list[str] = []
    looked_at, static = view(program), Statics()
    for linear in linears(looked_at, static).values():
        product = next(value for value in linear.body if value.op in ("linear", "matmul", "conv1d"))
        reason = _unfit(linear.weight.native, min(linear.in_features, linear.out_features))
        if reason:
            misses.append(f"{linear.root.name}: stays as it is, {reason}")
            continue
        _stored(found, linear.weight.native, linear.groups).uses.append(_use(linear, product))
    for value in looked_at.values:
        if value.op == "embedding" and value.index == 0:
            node = value.native.producer()
            table, ids = node.inputs
            shape = value.inputs[1].shape if value.inputs[1] is not None else None
            if reason := _unfit_table(table):
                misses.append(f"{value.name}: stays as it is, {reason}")
            else:
                _stored(found, table).uses.append(
                    WeightUse(node, "lookup", ids, rank=None if shape is None else len(shape))
                )
    for node in program.graph.graph:
        for position in _WHOLE.get((node.domain, node.op_type), ()):
            weight = node.inputs[position] if position < len(node.inputs) else None
            if weight is None or _unfit_table(weight):
                continue
            if position == 1:
                use = WeightUse(node, "attention", node.inputs[0], transposed=False)
            else:
                use = WeightUse(node, "table", None)
            _stored(found, weight).uses.append(use)
    order = {node: number for number, node in enumerate(program.graph.graph)}
    for stored in found.values():
        stored.uses.sort(key=lambda use: order[use.node])
    return sorted(found.values(), key=lambda stored: (order[stored.uses[0].node], stored.name)), misses


def _stored(found: dict[ir.Value, StoredWeight], value: ir.Value, groups: int = 1) -> StoredWeight:
    return found.setdefault(value, StoredWeight(value, groups=groups))


def _use(linear: Linear, product: Value) -> WeightUse:
    node = product.native.producer()
    if linear.axis != -1:
        return WeightUse(node, "convolution", node.inputs[0], dtype=product.dtype)
    return WeightUse(node, "product", node.inputs[0], linear.transposed, product.dtype)


def _unfit(weight: ir.Value, narrowest: int) -> str:
    """Why a weight is not packed; empty if it is."""
    if weight.const_value is None or not weight.is_initializer():
        producer = weight.producer()
        if producer is None:
            return "its weight is an input of the graph"
        if _decoded(producer):
            return "its weight is quantized already"
        return f"its weight is computed by {producer.op_type} in the graph: run fold-constants first"
    if weight.is_graph_input():
        return "a caller may override its weight"
    if weight.const_value.dtype not in _FLOATS:
        return f"its weight is stored as {weight.const_value.dtype.name.lower()}"
    if narrowest < SMALLEST:
        return f"its weight is only {' x '.join(map(str, weight.const_value.shape.numpy()))}"
    return ""


def _unfit_table(table: ir.Value) -> str:
    shape = () if table.const_value is None else tuple(table.const_value.shape.numpy())
    if table.const_value is not None and len(shape) != 2:
        return f"its table has {len(shape)} axes"
    return _unfit(table, min(shape, default=0))


def _decoded(node: ir.Node) -> bool:
    """Whether a weight is computed from small integers."""
    stack, seen = [node], {node}
    while stack:
        for value in [v for v in stack.pop().inputs if v is not None]:
            producer, tensor = value.producer(), value.const_value
            if producer is not None and producer not in seen:
                seen.add(producer)
                stack.append(producer)
            elif tensor is not None and tensor.nbytes > _FEW and tensor.dtype in _CODES:
                return True
    return False
