"""Shape arithmetic, folded: what an ONNX graph computes from Shape to feed Reshape, Expand and Slice.

Exporters write a reshape to (batch, length, 4, 8) as Shape, Gather, Unsqueeze and Concat. A size is an
int, a symbol's name or None (unknown); a scalar and a vector of one element look alike here.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from ..ops.symbolic import Shape, reshaped
from ..values import Dim, GraphValue

Sizes = tuple[Dim, ...]
SHAPING = {"Reshape", "Flatten", "Expand", "ConstantOfShape", "Slice", "Range"}
_PRODUCT = re.compile(r"\w+(\*\w+)*")
LARGEST = 64  # a longer vector is data, not a shape


def constant(tensor: Any) -> Sizes | None:
    """The elements of a small integer or boolean tensor of rank 0 or 1."""
    integer = tensor.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
    if not integer or len(tensor.shape) > 1 or tensor.size > LARGEST:
        return None
    return tuple(int(element) for element in tensor.numpy().reshape(-1))


def fold(node: ir.Node, operands: Sequence[GraphValue | None], sizes: Sequence[Sizes | None]) -> Sizes | None:
    """The sizes that a node computes, None if it computes anything else.

    Args:
        node: any node with one result.
        operands: its inputs. sizes: what is known of each as sizes.
    """
    if node.op_type == "Shape":
        shape = operands[0].shape if operands[0] is not None else None
        return None if shape is None else tuple(shape)[_attr(node, "start", 0) : _attr(node, "end", None)]
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain not in ("", "ai.onnx") or not sizes or sizes[0] is None:
        return None
    return rule(node, sizes)


def target(
    node: ir.Node, operands: Sequence[GraphValue | None], sizes: Sequence[Sizes | None]
) -> Shape | None:
    """The result's shape of an operator in SHAPING, from the sizes among its operands.

    A slice up to a symbol counts as that long: in a call where the axis is shorter, what follows fails.
    """
    source = operands[0].shape if operands and operands[0] is not None else None
    if node.op_type == "ConstantOfShape":
        return sizes[0]
    if node.op_type == "Range":
        return sizes[1] if (sizes[0], sizes[2]) == ((0,), (1,)) else None
    if node.op_type == "Flatten":
        axis = _attr(node, "axis", 1)
        if source is None or None in source:
            return (None, None)
        rows, columns = (reshaped(tuple(part), (-1,)) for part in (source[:axis], source[axis:]))
        return rows + columns
    if node.op_type == "Slice":
        return _sliced(source, sizes)
    wanted = sizes[1] if len(sizes) > 1 else None
    if wanted is None:
        return None
    if node.op_type == "Reshape":
        if not _attr(node, "allowzero", 0):
            wanted = tuple(_copied(source, i) if d == 0 else d for i, d in enumerate(wanted))
        return reshaped(source, wanted)
    if node.op_type == "Expand" and source is not None:
        missing = len(wanted) - len(source)
        padded = (1,) * missing + tuple(source) if missing >= 0 else source
        wanted = (1,) * -missing + tuple(wanted)
        return tuple(
            s if w == 1 or (w is None and s != 1) else w for s, w in zip(padded, wanted, strict=True)
        )
    return None


def _sliced(source: Shape | None, sizes: Sequence[Sizes | None]) -> Shape | None:
    if source is None or len(sizes) < 4 or None in sizes[1:4] or (len(sizes) > 4 and sizes[4] != (1,)):
        return None
    starts, ends, axes = sizes[1:4]
    if starts != (0,) or ends is None or axes is None or not isinstance(ends[0], str):
        return None
    axis = axes[0] % len(source) if isinstance(axes[0], int) else None
    return tuple(ends[0] if i == axis else d for i, d in enumerate(source))


def _copied(source: Shape | None, position: int) -> Dim:
    return source[position] if source is not None and position < len(source) else None


def _attr(node: ir.Node, name: str, default: Any) -> Any:
    found = node.attributes.get(name)
    return default if found is None else found.value


def _gather(node: ir.Node, sizes: Sequence[Sizes | None]) -> Sizes | None:
    data, positions = sizes[0], sizes[1]
    if data is None or positions is None:
        return None
    inside = all(isinstance(p, int) and -len(data) <= p < len(data) for p in positions)
    return tuple(data[p] for p in positions if isinstance(p, int)) if inside else None


def _slice(node: ir.Node, sizes: Sequence[Sizes | None]) -> Sizes | None:
    if "starts" in node.attributes:
        bounds: list[Any] = [_attr(node, "starts", (None,))[0], _attr(node, "ends", (None,))[0], 1]
    else:
        bounds = [s[0] if s else None for s in (sizes[1], sizes[2])]
        step = sizes[4] if len(sizes) > 4 else (1,)
        bounds.append(step[0] if step else None)
    if sizes[0] is None or not all(isinstance(b, int) for b in bounds):
        return None
    return sizes[0][bounds[0] : bounds[1] : bounds[2]]


def _concat(node: ir.Node, sizes: Sequence[Sizes | None]) -> Sizes | None:
    return None if None in sizes else tuple(d for part in sizes if part is not None for d in part)


def _elementwise(function: Callable[..., Any]) -> Any:
    def rule(node: ir.Node, sizes: Sequence[Sizes | None]) -> Sizes | None:
        if None in sizes:
            return None
        length = max(len(s) for s in sizes if s is not None)
        columns = [s * length if len(s) == 1 else s for s in sizes if s is not None]
        return tuple(function(*column) for column in zip(*columns, strict=True))

    return rule


def _arithmetic(function: Callable[[int, int], int], neutral: int) -> Any:
    def apply(a: Dim, b: Dim) -> Dim:
        if isinstance(a, int) and isinstance(b, int):
            return function(a, b)
        return a if b == neutral else None

    return _elementwise(apply)


def _multiply(a: Dim, b: Dim) -> Dim:
    """The product of two sizes; none of them is negative where it is a symbol."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    return reshaped((a, b), (-1,))[0] if _product(a) and _product(b) else None


def _divide(a: Dim, b: Dim) -> Dim:
    """The quotient, where symbols cancel and nothing remains."""
    if isinstance(a, int) and isinstance(b, int):
        return int(a / b) if b else 0
    return reshaped((a,), (-1, b))[0] if _product(a) and _product(b) else None


def _product(size: Dim) -> bool:
    """Whether a size is a positive number, a symbol, or a product of them."""
    return size > 0 if isinstance(size, int) else size is not None and bool(_PRODUCT.fullmatch(size))


def _equal(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    # A symbol is a size, and no size is negative.
    negative = any(isinstance(d, int) and d < 0 for d in (a, b))
    return 0 if negative and None not in (a, b) else None


def _where(condition: Dim, a: Dim, b: Dim) -> Dim:
    return (a if condition else b) if isinstance(condition, int) else (a if a == b else None)


def _constant_of_shape(node: ir.Node, sizes: Sequence[Sizes | None]) -> Sizes | None:
    tensor = _attr(node, "value", None)
    count = sizes[0][0] if sizes[0] and len(sizes[0]) == 1 else None
    if tensor is None or not isinstance(count, int) or count > LARGEST:
        return None
    element = constant(tensor)
    return element * count if element else None


_RULES: Mapping[str, Any] = {
    **dict.fromkeys(
        ("Unsqueeze", "Squeeze", "Cast", "Identity", "Reshape", "Flatten"), lambda node, sizes: sizes[0]
    ),
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Add": _arithmetic(operator.add, 0),
    "Sub": _arithmetic(operator.sub, 0),
    "Mul": _elementwise(_multiply),
    "Div": _elementwise(_divide),
    "Mod": _elementwise(lambda a, b: a % b if isinstance(a, int) and isinstance(b, int) and b else None),
    "Equal": _elementwise(_equal),
    "Where": _elementwise(_where),
    "ConstantOfShape": _constant_of_shape,
}
