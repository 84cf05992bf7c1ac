"""Linears of one input as one Linear: their weights side by side, and a Split of what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir.blocks.base import Linear
from ....ir.blocks.walk import passes
from ....ir.onnx.graph import Editor
from ....ir.onnx.lazy import lazy
from ....ir.values import Value

_PRODUCTS = ("linear", "matmul", "conv1d")


@dataclass(frozen=True)
class Siblings:
    """Linears that read one value, in the order of their pieces. name: of the block that they are in."""

    name: str
    members: tuple[Linear, ...]

    @property
    def weights(self) -> tuple[tuple[Value, bool], ...]:
        return tuple((linear.weight, linear.transposed) for linear in self.members)


def product(linear: Linear) -> Value:
    """The product inside a Linear, before its bias."""
    return next(value for value in linear.body if value.op in _PRODUCTS)


def unfit(linear: Linear) -> str:
    """Why a Linear cannot be a piece of a wider one; empty if it can."""
    weight, root = linear.weight, linear.root
    if linear.axis != -1 or linear.groups != 1:
        return "it is a convolution, whose features are not on the last axis"
    if weight.op != "const":
        return f"its weight is computed by {weight.op} in the graph: run fold-constants first"
    if linear.bias is not None and linear.bias.op != "const":
        return f"its bias is computed by {linear.bias.op} in the graph: run fold-constants first"
    if weight.dtype != (product(linear).dtype or weight.dtype):
        return f"its weight is stored as {weight.dtype} and computes in {product(linear).dtype}"
    if root.shape is None or linear.input.shape is None or len(root.shape) != len(linear.input.shape):
        return "its result has other axes than its input"
    kept = [value for value in linear.body if value != root and value.native.is_graph_output()]
    return f"'{kept[0].name}' inside it is an output of the model" if kept else ""


def duplicated(groups: Sequence[Siblings]) -> list[str]:
    """For each group, why merging it would keep a weight twice; empty where it would not.

    Groups of the very same weights (layers that share them) share the merged one.
    """
    readers: dict[tuple[tuple[Value, bool], ...], set[Value]] = {}
    for group in groups:
        readers.setdefault(group.weights, set()).update(map(product, group.members))
    return [_used_elsewhere(group, readers[group.weights]) for group in groups]


def _used_elsewhere(group: Siblings, readers: set[Value]) -> str:
    for weight, _ in group.weights:
        stack = [weight]
        while stack:
            value = stack.pop()
            if value.native.is_graph_output():
                return f"the weight '{weight.name}' is an output of the model too"
            for user in value.users:
                if user.op == "transpose" or passes(user):
                    stack.append(user)
                elif user not in readers:
                    return f"the weight '{weight.name}' is used by '{user.name}' too, and would be kept twice"
    return ""


class Merger:
    """Merges groups in one graph. Groups of the same weights get one merged weight.

    Args:
        model: edited in place.
    """

    def __init__(self, model: ir.Model) -> None:
        self.editor = Editor(model)
        self._weights: dict[tuple[object, ...], ir.Value] = {}
        self._order = {node: number for number, node in enumerate(model.graph)}

    def write(self, group: Siblings) -> None:
        """Put one product, one sum with the biases, and a Split in the members' place."""
        members = group.members
        roots: list[ir.Value] = [linear.root.native for linear in members]
        before = min((product(linear).native.producer() for linear in members), key=self._order.__getitem__)
        sizes = [linear.out_features for linear in members]
        name = f"{roots[0].name}.merged"
        shape = ir.Shape([*(members[0].input.shape or ())[:-1], sum(sizes)])
        x = self.editor.current(members[0].input.native)
        weight = self._weight(group, name)
        wide = self.editor.node("MatMul", [x, weight], name, before=before).outputs[0]
        wide.type, wide.shape = ir.TensorType(weight.dtype or ir.DataType.FLOAT), shape
        if any(linear.bias is not None for linear in members):
            bias = self._bias(members, name)
            wide = self.editor.node("Add", [wide, bias], f"{name}.sum", before=before, like=wide).outputs[0]
        lengths = self.editor.initializer(np.array(sizes), f"{name}.sizes")
        pieces = self.editor.node(
            "Split", [wide, lengths], f"{name}.split", before=before, attrs={"axis": -1}, results=len(sizes)
        ).outputs
        for root, piece in zip(roots, pieces, strict=True):
            piece.type, piece.shape = root.type or wide.type, root.shape
            self.editor.replace(root, piece)

    def _weight(self, group: Siblings, name: str) -> ir.Value:
        if group.weights not in self._weights:
            tensors = [(ir.convenience.get_const_tensor(w.native), turned) for w, turned in group.weights]
            data = _side_by_side(tensors, f"{name}.weight")
            self._weights[group.weights] = self.editor.initializer(data, f"{name}.weight")
        return self._weights[group.weights]

    def _bias(self, members: Sequence[Linear], name: str) -> ir.Value:
        key = tuple((linear.bias, linear.out_features) for linear in members)
        if key not in self._weights:
            parts = [
                np.zeros(linear.out_features, members[0].weight.dtype)
                if linear.bias is None or linear.bias.const is None
                else linear.bias.const.reshape(-1)
                for linear in members
            ]
            self._weights[key] = self.editor.initializer(np.concatenate(parts), f"{name}.bias")
        return self._weights[key]


def _side_by_side(parts: Sequence[tuple[ir.TensorProtocol | None, bool]], name: str) -> ir.LazyTensor:
    """Matrices joined along their output features, (in, sum of out), put together whenever it is read.

    Args:
        parts: each with whether it is stored (out, in).
    """
    tensors = [(tensor, turned) for tensor, turned in parts if tensor is not None]
    sizes = [tuple(tensor.shape.numpy())[:: -1 if turned else 1] for tensor, turned in tensors]

    def read() -> np.ndarray:
        arrays = [tensor.numpy().T if turned else tensor.numpy() for tensor, turned in tensors]
        return np.concatenate(arrays, axis=1)

    return lazy(read, tensors[0][0].dtype, (sizes[0][0], sum(out for _, out in sizes)), name)
