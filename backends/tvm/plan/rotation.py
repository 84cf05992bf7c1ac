"""Rotary positions as a kernel computes them: halves of a head turned by cosines and sines."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.blocks.rotary import rotary
from ....ir.blocks.walk import bare
from ....ir.values import Value, sizes

LAYOUT = {"reshape", "transpose", "unsqueeze", "expand"}


@dataclass(frozen=True)
class Rotation:
    """What turns a value of (batch, heads, length, size): (batch or 1, 1, length, size or half of it)."""

    cosines: Value
    sines: Value

    @property
    def width(self) -> int:
        return sizes(self.cosines)[-1]

    @property
    def places(self) -> int:
        """Rows of angles: of a sequence that all share, or of all sequences."""
        return sizes(self.cosines)[0] * sizes(self.cosines)[2]


def rotation(value: Value) -> Rotation | None:
    """How all of a value was turned by halves; None for anything else."""
    value = bare(value)
    found = rotary(value)
    if found is None or value.shape is None or len(value.shape) != 4:
        return None
    size = sizes(value)[-1]
    turned = _whole(value, bare(found.input), size) or _joined(value, bare(found.input), size)
    if turned is None:
        return None
    cosines, sines = turned.cosines.shape, turned.sines.shape
    fits = cosines == sines and cosines is not None and len(cosines) == 4 and cosines[1] == 1
    return turned if fits and sizes(turned.cosines)[-1] in (size, size // 2) else None


def rotated(value: Value) -> Value:
    """A value before numbers that multiply it, another layout, and repeats."""
    while True:
        value = bare(value)
        if value.op == "mul":
            plain = [v for v in value.inputs if v is not None and v.shape not in ((), (1,))]
            if len(plain) != 1:
                return value
            value = plain[0]
        elif value.op in LAYOUT and value.inputs[0] is not None:
            value = value.inputs[0]
        else:
            return value


def _whole(value: Value, x: Value, size: int) -> Rotation | None:
    """x cos + [-x2, x1] sin"""
    if value.op != "add":
        return None
    products = [bare(v) for v in value.inputs if v is not None]
    for plain, crossed in (products, products[::-1]):
        cosines = _other(plain, x)
        if cosines is None or crossed.op != "mul":
            continue
        for rotated, sines in (crossed.inputs, crossed.inputs[::-1]):
            if rotated is not None and sines is not None and _swapped(bare(rotated), x, size):
                return Rotation(cosines, bare(sines))
    return None


def _swapped(value: Value, x: Value, size: int) -> bool:
    """[-x2, x1]"""
    if value.op != "concat" or len(value.inputs) != 2 or value.attrs["axis"] not in (3, -1):
        return False
    first, second = (bare(v) for v in value.inputs if v is not None)
    if first.op != "neg" or first.inputs[0] is None:
        return False
    return _half(first.inputs[0], x, size) == 1 and _half(second, x, size) == 0


def _joined(value: Value, x: Value, size: int) -> Rotation | None:
    """[x1 cos - x2 sin, x2 cos + x1 sin]"""
    if value.op != "concat" or len(value.inputs) != 2 or value.attrs["axis"] not in (3, -1):
        return None
    first, second = (bare(v) for v in value.inputs if v is not None)
    if first.op != "sub" or second.op != "add":
        return None
    factors: dict[tuple[bool, int], Value] = {}  # by (in the second part, half of x)
    for part in (first, second):
        for place, product in enumerate(bare(v) for v in part.inputs if v is not None):
            for piece, factor in (product.inputs, product.inputs[::-1]) if product.op == "mul" else ():
                half = _half(piece, x, size) if piece is not None else None
                if half is None or factor is None or (part is first and half != place):
                    continue
                factors[part is second, half] = bare(factor)
    if len(factors) != 4 or factors[False, 0] != factors[True, 1] or factors[False, 1] != factors[True, 0]:
        return None
    return Rotation(factors[False, 0], factors[False, 1])


def _other(product: Value, x: Value) -> Value | None:
    """What a product multiplies x by."""
    if product.op != "mul":
        return None
    first, second = (bare(v) for v in product.inputs if v is not None)
    return second if first == x else first if second == x else None


def _half(value: Value, x: Value, size: int) -> int | None:
    """0 for the first half of x, 1 for the second."""
    value = bare(value)
    source = value.inputs[0] if value.op in ("slice", "split") else None
    if source is None or bare(source) != x or value.attrs["axis"] not in (3, -1):
        return None
    if value.op == "split":
        return value.index if tuple(value.attrs["sizes"]) == (size // 2,) * 2 else None
    start, end = value.attrs["start"], min(value.attrs["end"], size)
    if value.attrs["step"] != 1 or end - start != size // 2:
        return None
    return {0: 0, size // 2: 1}.get(start)
