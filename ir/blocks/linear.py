"""Linear: a product with a static matrix, its bias, and the flattening around it.

`linear` operators, `matmul` by a parameter (with a bias added after it), and 1x1 convolutions, grouped
ones included. Where rows are flattened for a two-dimensional product and unflattened after it (GPT-2's
Conv1D), the Linear goes from the unflattened input to the unflattened result.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..values import Value, View
from .base import Linear
from .walk import Statics, bare, only_user


def linears(view: View, static: Statics) -> dict[Value, Linear]:
    """Every Linear of a graph by its root, in topological order."""
    found: dict[Value, Linear] = {}
    for value in view.values:
        linear = _linear(value, static)
        if linear is not None:
            found[linear.root] = linear
    return found


def grouped_source(value: Value, linears: Mapping[Value, Linear]) -> Value:
    """What is split into pieces where a value is Linears of these, side by side (SqueezeBERT's groups as
    products); else the value."""
    sides = [linears.get(bare(v)) for v in value.inputs if v is not None] if value.op == "concat" else []
    pieces = [bare(one.input) for one in sides if one is not None]
    whole = {piece.inputs[0] for piece in pieces if piece.op == "split"}
    source = whole.pop() if len(whole) == 1 and len(pieces) == len(sides) else None
    return value if source is None else source


def _linear(value: Value, static: Statics) -> Linear | None:
    if value.op == "linear":
        return _product(value, bool(value.attrs["transposed"]), static)
    if value.op == "matmul":
        return _product(value, False, static)
    if value.op == "conv1d":
        return _convolution(value, static)
    return None


def _product(value: Value, transposed: bool, static: Statics) -> Linear | None:
    x, weight, bias = [*value.inputs, None][:3]
    if x is None or weight is None or not static(weight) or static(x):
        return None
    stored = bare(weight)
    while stored.op == "transpose" and stored.shape is not None and len(stored.shape) == 2:
        assert stored.inputs[0] is not None
        stored, transposed = bare(stored.inputs[0]), not transposed
    if stored.shape is None or len(stored.shape) != 2 or not all(isinstance(d, int) for d in stored.shape):
        return None
    rows, columns = stored.shape
    wide, narrow = (rows, columns) if transposed else (columns, rows)
    assert isinstance(wide, int)
    assert isinstance(narrow, int)
    body, root = [value], value
    if bias is None:
        root, bias = _biased(root, wide, static)
        body += [root] if root is not value else []
    x, before = _unflattened_input(x)
    after = _unflattened_result(root, wide) if before is not None else None
    if before is not None and after is not None:
        body = [before, *body, after]
        root = after
    elif before is not None:
        x = before
    return Linear(root, x, stored, bias, narrow, wide, transposed, body=tuple(body))


def _biased(value: Value, width: int, static: Statics) -> tuple[Value, Value | None]:
    """The sum with the bias that a value goes straight into, if it does."""
    user = value.users[0] if len(value.users) == 1 else None
    if user is None or user.op != "add":
        return value, None
    others = [v for v in user.inputs if v is not None and v != value]
    if len(others) == 1 and static.vector(others[0], width):
        return user, others[0]
    return value, None


def _unflattened_input(x: Value) -> tuple[Value, Value | None]:
    """(x before its rows were flattened, the flattening), or (x, None)."""
    flat = bare(x) if x.op == "fake_quantize" else x
    source = flat.inputs[0] if flat.op == "reshape" else None
    if source is None or not source.shape or not x.shape or len(x.shape) != 2 or len(source.shape) < 3:
        return x, None
    return (source, flat) if isinstance(x.shape[-1], int) and source.shape[-1] == x.shape[-1] else (x, None)


def _unflattened_result(root: Value, width: int) -> Value | None:
    user = only_user(root)
    if user is None or user.op != "reshape" or not user.shape or len(user.shape) < 3:
        return None
    return user if user.shape[-1] == width else None


def _convolution(value: Value, static: Statics) -> Linear | None:
    """A convolution over single positions: a Linear on axis 1, one per group."""
    x, weight, bias = [*value.inputs, None, None][:3]
    if x is None or weight is None or not static(weight) or weight.shape is None:
        return None
    wide, narrow, kernel = weight.shape
    attrs = value.attrs
    if kernel != 1 or any(s != 1 for s in attrs["stride"]) or any(p != 0 for p in attrs["padding"]):
        return None
    if not isinstance(wide, int) or not isinstance(narrow, int):
        return None
    groups = attrs["groups"]
    return Linear(
        value, x, bare(weight), bias, narrow * groups, wide, True, axis=1, groups=groups, body=(value,)
    )
