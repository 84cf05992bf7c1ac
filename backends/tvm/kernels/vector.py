"""Vectors in TIR: loads, stores, reductions and elementary functions, inside an active IRBuilder.

LLVM turns `exp` and `erf` of a vector into a call of libm for each lane, so they are written out here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T  # noqa: N812

Expr = Any


def lanes_of(value: Expr) -> int:
    """How many lanes an expression has; 1 for a scalar."""
    return int(value.ty.dtype.lanes)


def at(index: Expr, lanes: int) -> Expr:
    """The index of `lanes` neighbours from `index` on."""
    return index if lanes == 1 else T.ramp(index, 1, lanes)


def load(buffer: Any, *index: Expr, lanes: int) -> Expr:
    """`lanes` neighbours on the last axis."""
    return buffer[(*index[:-1], at(index[-1], lanes))]


def store(buffer: Any, value: Expr, *index: Expr) -> None:
    """Store a vector along the last axis."""
    T.buffer_store(buffer, value, [*index[:-1], at(index[-1], lanes_of(value))])


def splat(value: Expr | float | int, lanes: int, dtype: str = "float32") -> Expr:
    """A scalar in every lane."""
    scalar = tirx.const(value, dtype) if isinstance(value, int | float) else value
    return scalar if lanes == 1 else T.broadcast(scalar, lanes)


def cast(dtype: str, value: Expr) -> Expr:
    """Convert every lane."""
    lanes = lanes_of(value)
    return T.cast(value, dtype if lanes == 1 else f"{dtype}x{lanes}")


def reinterpret(dtype: str, value: Expr) -> Expr:
    """The same bits as another type of as many lanes."""
    lanes = lanes_of(value)
    return T.reinterpret(dtype if lanes == 1 else f"{dtype}x{lanes}", value)


def intrinsic(name: str, result: str, *arguments: Expr) -> Expr:
    """A call of one of LLVM's, which has no side effects."""
    return T.call_llvm_pure_intrin(result, T.llvm_lookup_intrinsic_id(name), *arguments)


def chunks(size: int, lanes: int) -> list[tuple[int, int]]:
    """(start, lanes) of vectors that cover `size` elements exactly, ever narrower at the end."""
    found, start = [], 0
    while start < size:
        while lanes > size - start:
            lanes //= 2
        found.append((start, lanes))
        start += lanes
    return found


def lane(value: Expr, number: int) -> Expr:
    """One lane of a vector."""
    return value if lanes_of(value) == 1 else T.Shuffle([value], [tirx.const(number, "int32")])


def fold(value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """All lanes combined into one, by halves."""
    while (lanes := lanes_of(value)) > 1:
        value = T.bind(value)
        half = lanes // 2
        low, high = (
            T.Shuffle([value], [tirx.const(i + first, "int32") for i in range(half)]) for first in (0, half)
        )
        value = combine(low, high)
    return T.bind(value)


def transposed(rows: list[Expr]) -> list[Expr]:
    """As many vectors as lanes, rows turned into columns: blocks of 1, 2, 4, ... lanes swapped in turn."""
    size, step = len(rows), 1
    while step < size:
        turned = list(rows)
        for i in (i for i in range(size) if not i & step):
            low = [lane if not lane & step else size + lane - step for lane in range(size)]
            high = [lane + step if not lane & step else size + lane for lane in range(size)]
            for place, picks in ((i, low), (i + step, high)):
                picked = [tirx.const(pick, "int32") for pick in picks]
                turned[place] = T.bind(T.Shuffle([rows[i], rows[i + step]], picked))
        rows, step = turned, 2 * step
    return rows


@dataclass(frozen=True)
class Reduction:
    """start: of every lane. combine: two vectors into one; associative and commutative."""

    start: float
    combine: Callable[[Expr, Expr], Expr]


SUM = Reduction(0.0, lambda a, b: a + b)
LARGEST = Reduction(-math.inf, lambda a, b: T.max(a, b))
SMALLEST = Reduction(math.inf, lambda a, b: T.min(a, b))


def row(
    size: int, lanes: int, reductions: tuple[Reduction, ...], terms: Callable[[Expr, int], tuple[Expr, ...]]
) -> list[Expr]:
    """Each of terms(column, lanes) combined over a row of `size` columns, in four chains that do not wait for
    each other. terms may store what it computes."""
    full = size // lanes
    chains = min(4, full)
    held = [T.alloc_buffer((max(chains, 1), lanes), "float32", scope="local") for _ in reductions]
    for reduction, sums in zip(reductions, held, strict=True):
        for chain in range(chains):
            store(sums, splat(reduction.start, lanes), chain, 0)
    if chains:
        with T.serial(0, full // chains) as group:
            for chain in range(chains):
                values = [T.bind(x) for x in terms((group * chains + chain) * lanes, lanes)]
                for reduction, sums, value in zip(reductions, held, values, strict=True):
                    store(sums, reduction.combine(load(sums, chain, 0, lanes=lanes), value), chain, 0)
    rest = [(vector * lanes, lanes) for vector in range(full - full % max(chains, 1), full)]
    rest += [(full * lanes + column, width) for column, width in chunks(size - full * lanes, lanes)]
    left = [[T.bind(x) for x in terms(column, width)] for column, width in rest]
    totals = []
    for number, (reduction, sums) in enumerate(zip(reductions, held, strict=True)):
        parts = [load(sums, chain, 0, lanes=lanes) for chain in range(chains)]
        parts += [values[number] for values in left]
        totals.append(_together(parts, reduction.combine))
    return totals


def _together(parts: list[Expr], combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """Vectors of one width pairwise, then lanes, then what is left."""
    widths = sorted({lanes_of(part) for part in parts}, reverse=True)
    scalars = []
    for width in widths:
        same = [part for part in parts if lanes_of(part) == width]
        while len(same) > 1:
            same = [*same[2:], T.bind(combine(same[0], same[1]))]
        scalars.append(fold(same[0], combine))
    while len(scalars) > 1:
        scalars = [*scalars[2:], T.bind(combine(scalars[0], scalars[1]))]
    return scalars[0]


def each(size: int, lanes: int, do: Callable[[Expr, int], None]) -> None:
    """do(column, lanes) over a row of `size` columns."""
    full = size // lanes
    if full:
        with T.serial(0, full) as vector:
            do(vector * lanes, lanes)
    for column, width in chunks(size - full * lanes, lanes):
        do(full * lanes + column, width)


def _polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Horner's rule, the highest power first."""
    lanes = lanes_of(x)
    value = splat(coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        value = T.fma(value, x, splat(coefficient, lanes))
    return value


# Cephes expf: relative error below 2e-7 (Moshier, 1989).
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
# erf(x) = x P(x^2) / Q(x^2) for |x| <= 4, absolute error below 4e-7 (Eigen's generic_fast_erf_float).
_ERF_P = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_ERF_Q = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
    -1.42647390514189e-02,
)  # fmt: skip


def exp(x: Expr) -> Expr:
    """e^x for x up to 88; below -87 it stays at 1.2e-38."""
    lanes = lanes_of(x)
    x = T.bind(T.max(x, splat(-87.3, lanes)))
    n = T.bind(T.nearbyint(x * splat(math.log2(math.e), lanes)))
    r = T.fma(n, splat(-0.693359375, lanes), x)
    r = T.bind(T.fma(n, splat(2.12194440e-4, lanes), r))
    p = T.fma(_polynomial(r, _EXP), r * r, r + splat(1.0, lanes))
    power = (cast("int32", n) + splat(127, lanes, "int32")) << splat(23, lanes, "int32")
    return p * reinterpret("float32", power)


def erf(x: Expr) -> Expr:
    """The error function."""
    lanes = lanes_of(x)
    x = T.bind(T.min(T.max(x, splat(-4.0, lanes)), splat(4.0, lanes)))
    square = T.bind(x * x)
    return x * _polynomial(square, _ERF_P) / _polynomial(square, _ERF_Q)


def _sigmoid(x: Expr) -> Expr:
    lanes = lanes_of(x)
    return splat(1.0, lanes) / (splat(1.0, lanes) + exp(T.min(splat(0.0, lanes) - x, splat(88.0, lanes))))


def softcapped(x: Expr, cap: float) -> Expr:
    """cap tanh(x / cap); tanh(u) = 2 sigmoid(2u) - 1."""
    lanes = lanes_of(x)
    return T.fma(splat(2 * cap, lanes), _sigmoid(x * splat(2 / cap, lanes)), splat(-cap, lanes))


def gelu(x: Expr) -> Expr:
    """x Phi(x) (Hendrycks and Gimpel, 2016, arXiv:1606.08415)."""
    lanes = lanes_of(x)
    x = T.bind(x)
    half = T.bind(x * splat(0.5, lanes))
    return T.fma(half, erf(x * splat(math.sqrt(0.5), lanes)), half)


# 0.5 erf(x / sqrt(2)) = x P((x / 3.9)^2) for |x| <= 3.9, 0.5 at the end: minimax of x times the error.
_ROUGH, _ROUGH_P = 3.9, (
    0.354102616, -1.54500796, 2.889896, -3.0766991, 2.10090741, -0.993515459, 0.398521625
)  # fmt: skip


def gelu_rough(x: Expr) -> Expr:
    """GELU within 2e-4, without a division: where the result is rounded to steps a hundred times as wide."""
    lanes = lanes_of(x)
    x = T.bind(x)
    near = T.bind(T.min(T.max(x, splat(-_ROUGH, lanes)), splat(_ROUGH, lanes)))
    scaled = T.bind(near * splat(1 / _ROUGH, lanes))
    return x * T.fma(near, _polynomial(scaled * scaled, _ROUGH_P), splat(0.5, lanes))


def gelu_tanh(x: Expr) -> Expr:
    """GELU by its tanh approximation; tanh(u) = 2 sigmoid(2u) - 1."""
    lanes = lanes_of(x)
    x = T.bind(x)
    inner = T.fma(x * x * x, splat(0.044715, lanes), x)
    return x * _sigmoid(inner * splat(2 * math.sqrt(2 / math.pi), lanes))


def silu(x: Expr) -> Expr:
    """x sigmoid(x)."""
    x = T.bind(x)
    return x * _sigmoid(x)


def tanh(x: Expr) -> Expr:
    """The hyperbolic tangent."""
    lanes = lanes_of(x)
    return splat(2.0, lanes) * _sigmoid(x * splat(2.0, lanes)) - splat(1.0, lanes)


def relu(x: Expr) -> Expr:
    """max(x, 0)."""
    return T.max(x, splat(0.0, lanes_of(x)))


ACTIVATIONS: dict[str, Callable[[Expr], Expr]] = {
    "gelu": gelu, "gelu_rough": gelu_rough, "gelu_tanh": gelu_tanh, "relu": relu, "silu": silu, "tanh": tanh
}  # fmt: skip
