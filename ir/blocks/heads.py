"""From the operands of an attention to its projections: which features of which Linear, in which axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..values import Value
from .base import Linear, Norm
from .layout import Atom, Layout
from .refused import Refused
from .rotary import OPERATORS, rotary
from .scores import Factor, times
from .walk import LAYOUT, Statics, bare, only_user, passes, users

ROTATES = {"add", "concat", "stack", "reshape"} | OPERATORS
LONGEST = 40  # steps between a projection and the scores, at most


@dataclass(frozen=True)
class Heads:
    """A query, key or value.

    linear: its projection, None where the walk ended at something else: `source`; what comes from parameters
        alone (a learned query, projected or not) counts as that.
    outer: the number that the product's operand is `value` times. scale: the product of all numbers on the
    way from the projection, that one included. shifted: a vector is added after the projection.
    features: (heads, head_dim) of the projection's outputs.
    layout: letters as in Attention.layouts. axes: for each axis, its atoms.
    """

    value: Value
    source: Value
    linear: Linear | None
    outer: float
    scale: float
    rotary: bool
    norm: Norm | None
    shifted: bool
    layout: str
    heads: int
    head_dim: int
    features: np.ndarray | None
    axes: tuple[tuple[Atom, ...], ...]
    body: tuple[Value, ...]


def heads(
    operand: Factor, length: str, size: str, linears: Mapping[Value, Linear], norms: Mapping[Value, Norm],
    static: Statics,
) -> Heads:  # fmt: skip
    """Follow an operand up to its projection, and its features down again.

    Args:
        operand: with letters for its axes; `length` and `size` are those of positions and head size.

    Raises:
        Refused: a step on the way cannot be followed, or the axes do not come out as heads and positions.
    """
    body: list[Value] = []
    outer, operand = _unscaled(operand, body)
    way = _up(operand.value, outer, body, linears, norms, static)
    value = way.value
    linear = linears.get(value)
    letters, place = operand.letters, operand.letters.index
    learned = linear is None and static(value) and len(value.shape or ()) > 2
    if linear is None and not learned:
        return _bare_heads(
            operand, place(length), place(size), value, outer, way.scale, way.turned, way.norm, way.shifted,
            tuple(body),
        )  # fmt: skip
    if value.shape is None:
        raise Refused(value, "its shape is unknown")
    axis = -1 if linear is None else linear.axis
    width = value.shape[axis] if linear is None else linear.out_features
    if not isinstance(width, int):
        raise Refused(value, "how many features it has is unknown")
    layout = Layout.of(value.shape, {axis % len(value.shape): (width,)})
    for step in reversed(way.steps):
        layout = layout.through(step)
    if len(layout.axes) != len(letters):
        raise Refused(operand.value, "the number of axes is not what the product says")
    text, head_axes = _read(operand, layout, place(length), place(size))
    try:
        columns = layout.columns([*head_axes, place(size)])
    except ValueError:
        raise Refused(operand.value, "features of the projection lie on the axis of positions") from None
    features = columns.reshape(-1, columns.shape[-1])
    source, projected = (value, ()) if linear is None else (linear.input, linear.body)
    return Heads(
        operand.value, source, linear, outer, way.scale, way.turned, way.norm, way.shifted, text,
        features.shape[0], features.shape[1], None if linear is None else features, layout.axes,
        (*projected, *body[::-1]),
    )  # fmt: skip


@dataclass
class _Way:
    """From an operand up to `value`. steps: what moved features, from below. turned: rotated. norm: of the
    queries or keys. shifted: something was added."""

    value: Value
    scale: float
    steps: list[Value] = field(default_factory=list)
    turned: bool = False
    norm: Norm | None = None
    shifted: bool = False


def _up(
    value: Value, scale: float, body: list[Value], linears: Mapping[Value, Linear],
    norms: Mapping[Value, Norm], static: Statics,
) -> _Way:  # fmt: skip
    """As far up as a projection, or as what can be followed; what lies between goes into the body."""
    way = _Way(value, scale)
    while way.value not in linears and len(way.steps) < LONGEST:
        value = way.value
        number = times(value)
        rotation = rotary(value) if value.op in ROTATES else None
        added = _shift(value, static)
        if number is not None and way.norm is None and not way.shifted:
            way.scale *= number[0]
            body.append(value)
            way.value = number[1]
        elif added is not None and way.norm is None and not way.turned:
            way.shifted = True
            way.steps.append(value)
            body.append(value)
            way.value = added
        elif value in norms and way.norm is None and not way.shifted:
            way.norm = norms[value]
            body += way.norm.body
            way.steps.append(value)
            way.value = way.norm.input
        elif rotation is not None and same_shape(rotation.root, rotation.input):
            way.turned = True
            body += rotation.body
            way.value = rotation.input
        elif (passes(value) or value.op in LAYOUT) and value.inputs[0] is not None:
            way.steps.append(value)
            body.append(value)
            way.value = value.inputs[0]
        else:
            break
    return way


def _shift(value: Value, static: Statics) -> Value | None:
    """x, of x + a parameter of no more axes."""
    if value.op != "add" or len(value.inputs) != 2 or None in value.inputs:
        return None
    for x, vector in (value.inputs, value.inputs[::-1]):
        assert x is not None
        assert vector is not None
        if vector.shape and static(vector) and not static(x) and same_shape(x, value):
            return x
    return None


def _unscaled(operand: Factor, body: list[Value]) -> tuple[float, Factor]:
    """The numbers that an operand is multiplied by at the very end, and the operand without them."""
    outer, value = 1.0, bare(operand.value)
    number = times(value)
    while number is not None:
        body.append(value)
        outer, value = outer * number[0], bare(number[1])
        number = times(value)
    return (outer, Factor(value, operand.letters)) if body else (1.0, operand)


def same_shape(a: Value, b: Value) -> bool:
    if a.shape is None or b.shape is None:
        return True
    pairs = list(zip(a.shape, b.shape, strict=False))
    return len(a.shape) == len(b.shape) and all(
        x == y for x, y in pairs if isinstance(x, int) and isinstance(y, int)
    )


def _read(operand: Factor, layout: Layout, length: int, size: int) -> tuple[str, list[int]]:
    """(letters, axes that hold heads)."""
    text, head_axes = "", []
    for axis, atoms in enumerate(layout.axes):
        if axis == size:
            if not atoms or not all(a.feature for a in atoms):
                raise Refused(operand.value, "the axis summed over holds no features of the projection")
            text += "d"
        elif axis == length:
            text += "l"
        else:
            kinds = "".join("h" if a.feature else "b" for a in atoms)
            kinds = kinds.replace("bb", "b").replace("hh", "h")
            text += kinds if len(kinds) == 1 else f"({kinds})" if kinds else "1"
            if "h" in kinds:
                head_axes.append(axis)
    return text, head_axes


def _bare_heads(
    operand: Factor, length: int, size: int, source: Value, outer: float, scale: float, turned: bool,
    norm: Norm | None, shifted: bool, body: tuple[Value, ...],
) -> Heads:  # fmt: skip
    """Heads that no projection stands over: told by position, (batch, heads, length, size)."""
    shape = operand.value.shape
    head_dim = shape[size] if shape else None
    if shape is None or not isinstance(head_dim, int) or len(shape) not in (3, 4):
        raise Refused(
            operand.value, f"comes from {source.op}, and its shape does not tell heads and head size"
        )
    others = [axis for axis in range(len(shape)) if axis not in (length, size)]
    count = shape[others[-1]] if len(others) == 2 else 1
    if not isinstance(count, int):
        raise Refused(operand.value, f"comes from {source.op}, and its number of heads is unknown")
    text = ["?"] * len(shape)
    axes: list[tuple[Atom, ...]] = [()] * len(shape)
    for axis, letter in zip([*others, length, size], "bhld" if len(others) == 2 else "bld", strict=True):
        text[axis] = letter
        atoms = {"h": Atom("h", count, True), "d": Atom("d", head_dim, True)}
        axes[axis] = (atoms.get(letter, Atom(letter, shape[axis])),)
    return Heads(
        operand.value, source, None, outer, scale, turned, norm, shifted, "".join(text), count, head_dim,
        None, tuple(axes), body[::-1],
    )  # fmt: skip


def merged(
    context: Factor,
    query: Heads,
    query_letters: str,
    size: str,
    head_dim: int,
    inputs: Mapping[Value, list[Linear]],
) -> tuple[Value, Linear | None, tuple[Value, ...]]:
    """(merged context, output projection, body): follow the context down to where heads are one axis again,
    or to where something else meets them (`met`).

    Args:
        query: whose batch and head axes the context shares, by letter.
        head_dim: of the values, on the axis `size`.
        inputs: the Linears by what they read.

    Raises:
        Refused: the heads are not merged in the order in which they were split.
    """
    axes: list[tuple[Atom, ...]] = []
    order: list[Atom] = []
    for letter in context.letters:
        if letter == size:
            atoms: tuple[Atom, ...] = (Atom("size", head_dim, True),)
        elif letter in query_letters:
            atoms = query.axes[query_letters.index(letter)]
        else:
            raise Refused(context.value, "has axes that the query has not")
        order += [a for a in atoms if a.feature and a not in order]
        axes.append(atoms)
    sizes = [a.count for a in order]
    layout = Layout(tuple(axes), tuple(order), np.arange(math.prod(sizes)).reshape(sizes))
    heads_first = [a for a in order if a.name != "size"] + [a for a in order if a.name == "size"]
    if list(order) != heads_first:  # (length, size, heads) and the like: number the features by head
        moved = np.arange(math.prod(sizes)).reshape([a.count for a in heads_first])
        layout = Layout(tuple(axes), tuple(order), moved.transpose([heads_first.index(a) for a in order]))
    value, body = context.value, [context.value]
    while True:
        whole = [axis for axis in range(len(layout.axes)) if layout.kept(axis) not in (None, ())]
        mixed = any(a.feature for axis, atoms in enumerate(layout.axes) if axis not in whole for a in atoms)
        if len(whole) == 1 and not mixed:
            break
        following = [u for u in users(value) if u.op in LAYOUT]
        if _ends(value, layout):
            return value, None, tuple(body)
        if len(following) != 1:
            raise Refused(value, "the heads are not merged into one axis after the values are weighed")
        layout, value = layout.through(following[0]), following[0]
        body.append(value)
    if not np.array_equal(layout.columns(whole).reshape(-1), np.arange(layout.features.size)):
        raise Refused(value, "the heads are merged in another order than they were split")
    return _projected(value, layout, whole[0], inputs, body)


def met(context: Value) -> Value | None:
    """Where what is no part of an attention meets its context: other heads are put beside its own (ConvBERT:
    Jiang et al., 2020, arXiv:2008.02496, section 3.3) or something is added to them (Nystromformer's
    convolution of the values: Xiong et al., 2021, arXiv:2102.03902)."""
    user = only_user(context)
    if user is not None and (user.op == "concat" or (user.op == "add" and same_shape(context, user))):
        return user
    return None


def _ends(value: Value, layout: Layout) -> bool:
    """Whether a context with its heads and their features on one axis each meets something else."""
    user = met(value)
    whole = [axis for axis in range(len(layout.axes)) if layout.kept(axis) not in (None, ())]
    if user is None or len(layout.axes) != 4 or len(whole) != 2:
        return False
    for heads_on, size_on in (whole, whole[::-1]):
        features = layout.columns([heads_on, size_on]).reshape(-1)
        if np.array_equal(features, np.arange(features.size)):
            return user.op == "add" or user.attrs["axis"] % 4 == heads_on
    return False


def _projected(
    value: Value, layout: Layout, axis: int, inputs: Mapping[Value, list[Linear]], body: list[Value]
) -> tuple[Value, Linear | None, tuple[Value, ...]]:
    """The output projection below a merged context, past transposes and flattenings of its rows."""
    current = value
    way: list[Value] = []
    for _ in range(4):
        for linear in inputs.get(current, []):
            if linear.axis % len(layout.axes) == axis and linear.in_features == layout.features.size:
                return current, linear, (*body, *way)
        following = [u for u in users(current) if u.op in LAYOUT]
        if len(following) != 1:
            break
        try:
            layout = layout.through(following[0])
        except Refused:
            break
        kept = [i for i in range(len(layout.axes)) if layout.kept(i) not in (None, ())]
        if len(kept) != 1:
            break
        current, axis = following[0], kept[0]
        way.append(current)
    return value, None, tuple(body)
