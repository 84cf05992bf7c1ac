"""When an ONNX node returns its operand, and when it may reach past the node before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ....ir.onnx.graph import OnnxView
from ....ir.onnx.operators import dtype_name
from ....ir.values import Dim

Rule = Callable[[ir.Node, OnnxView], ir.Value | None]
_SMALL = 1024  # bytes of a constant worth reading


def unchanged(node: ir.Node, view: OnnxView) -> ir.Value | None:
    """The operand that a node's first result equals in type, shape and content; None if there is none.

    A node whose other results are used is left alone.

    Args:
        view: knows shapes and types, those that the graph leaves out included.
    """
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain != "" or not node.inputs:
        return None
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return None
    return rule(node, view)


def shortcut(node: ir.Node, view: OnnxView, allow: Callable[[str], bool]) -> bool:
    """Let a transpose, reshape or cast take the operand of the like node before it where that is equal."""
    inner = _producer(node.inputs[0], node.op_type) if node.inputs and node.inputs[0] is not None else None
    if inner is None or node.domain != "" or inner.inputs[0] is None:
        return False
    perm = None
    if node.op_type == "Transpose":
        outer, first = _perm(node, view), _perm(inner, view)
        if outer is None or first is None:
            return False
        perm = [first[axis] for axis in outer]
    elif node.op_type == "Reshape":
        wanted = small(node.inputs[1])
        if wanted is None or 0 in wanted:  # a 0 copies a size of the operand, which would be another one
            return False
    elif node.op_type != "Cast" or not _holds(_target(inner), view.of(inner.inputs[0]).dtype):
        return False
    if not allow(f"let {node.op_type} {node.outputs[0].name} take the operand of {inner.outputs[0].name}"):
        return False
    node.replace_input_with(0, inner.inputs[0])
    if perm is not None:
        node.attributes["perm"] = ir.AttrInt64s("perm", perm)
    return True


def small(value: ir.Value | None) -> np.ndarray | None:
    """A small constant's contents; None for anything else."""
    if value is None or value.is_graph_input() or value.const_value is None:
        return None
    tensor = value.const_value
    return tensor.numpy() if tensor.nbytes <= _SMALL and not tensor.dtype.is_string() else None


def _first(node: ir.Node, view: OnnxView) -> ir.Value | None:
    return node.inputs[0]


def _only(node: ir.Node, view: OnnxView) -> ir.Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _dropout(node: ir.Node, view: OnnxView) -> ir.Value | None:
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is None:
        return node.inputs[0]
    given = small(training)
    return node.inputs[0] if given is not None and not given.any() else None


def _cast(node: ir.Node, view: OnnxView) -> ir.Value | None:
    value = node.inputs[0]
    return value if value is not None and view.of(value).dtype == dtype_name(_target(node)) else None


def _target(node: ir.Node) -> ir.DataType:
    return ir.DataType(node.attributes["to"].as_int())


def _holds(wide: ir.DataType, narrow_name: str | None) -> bool:
    """Whether a cast to `wide` keeps every value of the other type."""
    if narrow_name in (None, "string") or wide.is_string():
        return False
    narrow = ir.DataType.from_numpy(np.dtype(narrow_name))
    if narrow == ir.DataType.BOOL or wide == narrow:
        return True
    # NumPy calls int64 to float64 safe; it rounds above 2 ** 53.
    exact = not (narrow.is_integer() and wide.is_floating_point()) or narrow.bitwidth < 64
    return exact and np.can_cast(narrow.numpy(), wide.numpy(), "safe")


def _transpose(node: ir.Node, view: OnnxView) -> ir.Value | None:
    perm = _perm(node, view)
    return node.inputs[0] if perm is not None and list(perm) == sorted(perm) else None


def _perm(node: ir.Node, view: OnnxView) -> Sequence[int] | None:
    if "perm" in node.attributes:
        return node.attributes["perm"].as_ints()
    shape = view.of(node.inputs[0]).shape
    return None if shape is None else list(range(len(shape)))[::-1]


def _reshape(node: ir.Node, view: OnnxView) -> ir.Value | None:
    shape, wanted = view.of(node.inputs[0]).shape, small(node.inputs[1])
    if shape is None or wanted is None or len(wanted) != len(shape):
        return None
    zero_copies = "allowzero" not in node.attributes or not node.attributes["allowzero"].as_int()
    moved = [
        size
        for size, have in zip(wanted.tolist(), shape, strict=True)
        if not (size == have or (size == 0 and zero_copies))
    ]
    # A lone -1 is whatever is left: the size it had.
    return node.inputs[0] if not moved or moved == [-1] else None


def _expand(node: ir.Node, view: OnnxView) -> ir.Value | None:
    wanted = small(node.inputs[1])
    kept = wanted is not None and _kept(view.of(node.inputs[0]).shape, wanted.tolist())
    return node.inputs[0] if kept else None


def _kept(shape: Sequence[Dim] | None, other: Sequence[int]) -> bool:
    """Whether broadcasting against the other shape leaves this one as it is."""
    if shape is None or len(other) > len(shape):
        return False
    tail = shape[len(shape) - len(other) :]
    return all(size in (1, have) for size, have in zip(other, tail, strict=True))


def _slice(node: ir.Node, view: OnnxView) -> ir.Value | None:
    if "starts" in node.attributes or len(node.inputs) < 3:
        return None
    starts, ends, axes, steps = (small(node.inputs[i]) if len(node.inputs) > i else None for i in range(1, 5))
    stepped = len(node.inputs) > 4 and node.inputs[4] is not None and (steps is None or (steps != 1).any())
    if starts is None or ends is None or starts.any() or stepped:
        return None
    far = np.iinfo(np.int32).max  # exporters write "to the end" as the largest integer of either width
    if (ends >= far).all():
        return node.inputs[0]
    shape = view.of(node.inputs[0]).shape
    if axes is None or shape is None:
        return None
    sizes = [shape[int(axis)] for axis in axes]
    fits = all(isinstance(size, int) and end >= size for size, end in zip(sizes, ends, strict=True))
    return node.inputs[0] if fits else None


def _undone_by(inverse: str) -> Rule:
    def rule(node: ir.Node, view: OnnxView) -> ir.Value | None:
        inner = _producer(node.inputs[0], inverse) if node.inputs[0] is not None else None
        if inner is None or len(node.inputs) < 2 or len(inner.inputs) < 2:
            return None
        axes, undone = small(node.inputs[1]), small(inner.inputs[1])
        if axes is None or undone is None or sorted(axes.tolist()) != sorted(undone.tolist()):
            return None
        return inner.inputs[0]  # both count axes in the larger of the two ranks, so -1 is one axis to both

    return rule


def _neutral(constant: int, either_side: bool) -> Rule:
    def rule(node: ir.Node, view: OnnxView) -> ir.Value | None:
        for value, other in (node.inputs[:2], node.inputs[1::-1])[: 2 if either_side else 1]:
            given = small(other)
            if given is None or not (given == constant).all():
                continue
            if given.ndim == 0 or _kept(view.of(value).shape, given.shape):
                return value
        return None

    return rule


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


_RULES: dict[str, Rule] = {
    "Identity": _first,
    "Dropout": _dropout,
    "Cast": _cast,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Expand": _expand,
    "Slice": _slice,
    "Squeeze": _undone_by("Unsqueeze"),
    "Unsqueeze": _undone_by("Squeeze"),
    "Add": _neutral(0, either_side=True),
    "Sub": _neutral(0, either_side=False),
    "Mul": _neutral(1, either_side=True),
    "Div": _neutral(1, either_side=False),
    "And": _neutral(1, either_side=True),
    "Or": _neutral(0, either_side=True),
    **dict.fromkeys(("Concat", "Sum", "Max", "Min", "Mean"), _only),
}
