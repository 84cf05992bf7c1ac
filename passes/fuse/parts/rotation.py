"""What a rotary position embedding rotates by: its cosines and sines, and in which pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ....ir.blocks.rotary import rotary
from ....ir.blocks.walk import LAYOUT, bare
from ....ir.ops.evaluate import Unknown, evaluate
from ....ir.values import Value
from .driver import Unfit
from .operands import Operand

_INSIDE = LAYOUT | {"add", "sub", "mul", "neg", "concat", "stack", "identity", "cast"}
_LENGTH = 3  # positions in the example that a rotation is tried on
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Rotation:
    """input is rotated by cos and sin in its first `width` features: pairs (i, i + width / 2), or
    neighbours where interleaved. unit: axes of cos and sin that only heads have."""

    input: Value
    cos: Value
    sin: Value
    width: int
    interleaved: bool
    unit: tuple[int, ...]


def rotation(side: Operand) -> Rotation:
    """How a query or key is rotated, found by computing it on an example.

    Raises:
        Unfit: it is not x cos + rotate(x) sin with cosines and sines shared by the pairs' two features.
    """
    found = rotary(side.value)
    if found is None:
        raise Unfit("its last step is no rotation")
    if sorted(side.axes) != ["b", "d", "h", "l"] or side.axes[-1] != "d":
        raise Unfit(f"its axes are {','.join(side.axes)}")
    leaves = list(_leaves(side.value, found.input))
    if len(leaves) != 2 or leaves[0].shape is None or leaves[1].shape != leaves[0].shape:
        raise Unfit(
            f"it is computed from {len(leaves)} values besides the rotated one, not cosines and sines"
        )
    shape = leaves[0].shape
    unit = _head_axes(shape, side)
    if not isinstance(shape[-1], int):
        raise Unfit("how many features it rotates is unknown")
    for cos, sin in (leaves, leaves[::-1]):
        for width in (shape[-1], 2 * shape[-1]):
            for interleaved in (False, True):
                if width <= side.size and _is(side, found.input, cos, sin, width, interleaved):
                    if width == shape[-1] and not (_paired(cos, interleaved) and _paired(sin, interleaved)):
                        raise Unfit("the two features of a pair are turned by different angles")
                    return Rotation(found.input, cos, sin, width, interleaved, unit)
    raise Unfit("it pairs features in a way that RotaryEmbedding does not")


def _leaves(root: Value, source: Value) -> Iterator[Value]:
    """What a rotation is computed from, besides `source`."""
    stack, seen = [root], {root, source, bare(source)}
    while stack:
        value = stack.pop()
        inside = value == root or (value.op in _INSIDE and _reads(value, source))
        if not inside:
            yield value
            continue
        for operand in value.inputs:
            if operand is not None and operand not in seen:
                seen.add(operand)
                stack.append(operand)


def _reads(value: Value, source: Value, steps: int = 8) -> bool:
    """Whether a value is computed from `source` in a few steps."""
    if value == source or bare(value) == bare(source):
        return True
    return steps > 0 and value.op in _INSIDE and any(
        v is not None and _reads(v, source, steps - 1) for v in value.inputs
    )  # fmt: skip


def _head_axes(shape: tuple[object, ...], side: Operand) -> tuple[int, ...]:
    """The axes of cosines and sines that stand for heads, and which must be 1."""
    head = side.axes.index("h") - 4 + len(shape)
    unit = (head,) if head >= 0 else ()
    rest = [d for axis, d in enumerate(shape) if axis not in unit]
    if any(shape[axis] != 1 for axis in unit) or len(rest) not in (2, 3):
        raise Unfit("its cosines are not shared by the heads")
    return unit


def _is(side: Operand, source: Value, cos: Value, sin: Value, width: int, interleaved: bool) -> bool:
    """Whether a rotation computes what RotaryEmbedding would."""
    rng = np.random.default_rng(0)
    sizes = {"b": 1, "h": side.heads, "l": _LENGTH, "d": side.size}
    x = rng.standard_normal([sizes[axis] for axis in side.axes])
    columns = (cos.shape or (0,))[-1]
    assert isinstance(columns, int)
    rank = len(cos.shape or ())
    around = [1 if axis != "l" else _LENGTH for axis in side.axes[:-1]]
    c, s = (rng.standard_normal([*around, columns])[(0,) * (4 - rank)] for _ in range(2))
    half = width // 2
    first, second = (x[..., 0:width:2], x[..., 1:width:2]) if interleaved else (
        x[..., :half], x[..., half:width]
    )  # fmt: skip
    if columns == width:
        parts = (
            (slice(0, width, 2), slice(1, width, 2)) if interleaved else (slice(0, half), slice(half, width))
        )
        (c1, c2), (s1, s2) = ([table[..., part] for part in parts] for table in (c, s))
    else:
        c1, c2, s1, s2 = c, c, s, s
    pair = [first * c1 - second * s1, second * c2 + first * s2]
    turned = np.stack(pair, -1).reshape(*x.shape[:-1], width) if interleaved else np.concatenate(pair, -1)
    wanted = np.concatenate([turned, x[..., width:]], -1)
    symbols = {str(d): n for d, n in zip(source.shape or (), x.shape, strict=False) if isinstance(d, str)}
    try:
        result = evaluate(side.value, {source: x, bare(source): x, cos: c, sin: s}, symbols)
    except Unknown:
        return False
    return result.shape == wanted.shape and bool(np.abs(result - wanted).max() < _TOLERANCE)


def _paired(table: Value, interleaved: bool) -> bool:
    """Whether cosines or sines are the same for both features of every pair."""
    feeds = {}
    stack, seen = [table], {table}
    while stack:
        value = stack.pop()
        if value.op == "input":
            sizes = [d if isinstance(d, int) else _LENGTH for d in value.shape or ()]
            feeds[value] = np.random.default_rng(0).integers(0, 50, sizes)
        for operand in value.inputs:
            if operand is not None and operand not in seen:
                seen.add(operand)
                stack.append(operand)
    symbols = {d: _LENGTH for v in seen for d in v.shape or () if isinstance(d, str)}
    try:
        result = evaluate(table, feeds, symbols)
    except Unknown as unknown:
        raise Unfit(f"cannot tell what its angles are: {unknown}") from unknown
    half = result.shape[-1] // 2
    pairs = (result[..., ::2], result[..., 1::2]) if interleaved else (result[..., :half], result[..., half:])
    return np.array_equal(*pairs)
