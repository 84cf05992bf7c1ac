"""What a kernel does with a row once it is whole: residual, norm, rounding to int8 or bfloat16.

LayerNorm (Ba et al., 2016, arXiv:1607.06450), RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467), NoNorm
(Sun et al., 2020, arXiv:2004.02984); rounding as ONNX's DynamicQuantizeLinear defines it, but with a scale
and a zero point for each row: a token does not depend on its neighbours, and no row waits for another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tvm import tirx
from tvm.tirx.script import builder as T  # noqa: N812

from .dot import Dot
from .vector import LARGEST, SMALLEST, SUM, Expr, cast, each, lanes_of, load, row, splat, store

Rounds = Literal["no", "dynamic", "static", "bfloat16"]


@dataclass(frozen=True)
class Norm:
    """kind: layer, rms or none (scale and shift alone). scale, shift: whether it has them."""

    kind: Literal["layer", "rms", "none"]
    epsilon: float = 0.0
    scale: bool = True
    shift: bool = True


@dataclass(frozen=True)
class Finish:
    """residual: whether another row is added. stream: whether that sum is wanted too (pre-norm models).
    norm: what follows. floats: whether the float32 row is wanted. rounds: whether and how it is wanted in
    int8, or in bfloat16."""

    residual: bool = False
    stream: bool = False
    norm: Norm | None = None
    floats: bool = True
    rounds: Rounds = "no"

    @property
    def whole(self) -> bool:
        """Whether a row must be complete before any of it can be written."""
        return self.norm is not None or self.rounds == "dynamic"


@dataclass(frozen=True)
class Outputs:
    """The buffers of a finish; None for what it does without.

    residual, stream, floats: [m, n] float32. gamma, beta: [n]. stored: [m, n] of the dot's dtype. scale: [m]
    float32. zero: [m] int32. fixed: [2] float32, 1 / scale and zero point of static rounding.
    """

    residual: Any = None
    gamma: Any = None
    beta: Any = None
    fixed: Any = None
    stream: Any = None
    floats: Any = None
    stored: Any = None
    scale: Any = None
    zero: Any = None


def declare_inputs(finish: Finish, m: Expr, n: int, padded: int) -> dict[str, Any]:
    """The inputs of a finish as parameters of the PrimFunc being built, in the order of `Outputs`."""
    found: dict[str, Any] = {}
    norm = finish.norm
    if finish.residual:
        found["residual"] = T.arg("residual", T.buffer((m, n), "float32"))
    if norm and norm.scale:
        found["gamma"] = T.arg("gamma", T.buffer((padded,), "float32"))
    if norm and norm.shift:
        found["beta"] = T.arg("beta", T.buffer((padded,), "float32"))
    if finish.rounds == "static":
        found["fixed"] = T.arg("fixed", T.buffer((2,), "float32"))
    return found


def declare_outputs(finish: Finish, m: Expr, n: int, dot: Dot) -> dict[str, Any]:
    """The results of a finish as parameters, in the order of `Outputs`."""
    found: dict[str, Any] = {}
    if finish.stream:
        found["stream"] = T.arg("stream", T.buffer((m, n), "float32"))
    if finish.floats:
        found["floats"] = T.arg("floats", T.buffer((m, n), "float32"))
    if finish.rounds != "no":
        found["stored"] = T.arg("stored", T.buffer((m, n), dot.dtype))
    if finish.rounds == "dynamic":
        found["scale"] = T.arg("scale", T.buffer((m,), "float32"))
        found["zero"] = T.arg("zero", T.buffer((m,), "int32"))
    return found


def quantized(value: Expr, inverse: Expr, zero: Expr, dot: Dot) -> Expr:
    """saturate(round(value / scale) + zero), as it is stored. inverse, zero: float32 scalars."""
    lanes = lanes_of(value)
    q = T.nearbyint(value * splat(inverse, lanes)) + splat(zero, lanes)
    q = T.min(T.max(q, splat(0.0, lanes)), splat(255.0, lanes))
    if dot.bias:
        q = q - splat(float(dot.bias), lanes)
    return cast(dot.dtype, cast("int32", q))


def rounded(value: Expr, finish: Finish, outputs: Outputs, dot: Dot) -> Expr:
    """A value as it is stored, where no other of its row decides that."""
    if finish.rounds == "bfloat16":
        assert dot.narrow is not None
        return dot.narrow(value)
    return quantized(value, outputs.fixed[0], outputs.fixed[1], dot)


def finish_row(
    finish: Finish,
    outputs: Outputs,
    dot: Dot,
    lanes: int,
    n: int,
    number: Expr,
    get: Callable[[Expr, int], Expr],
    held: tuple[Any, Expr],
) -> None:
    """Write one whole row.

    Args:
        number: of the row in `outputs`.
        get: (column, lanes) -> the row's values before residual and norm.
        held: (buffer, row): n floats to keep the row in where no float output is wanted; may be where `get`
            reads from.
    """
    keep, slot = (outputs.floats, number) if finish.floats else held

    def summed(column: Expr, width: int) -> Expr:
        value = get(column, width)
        if finish.residual:
            value = value + load(outputs.residual, number, column, lanes=width)
        if finish.stream:
            value = T.bind(value)
            store(outputs.stream, value, number, column)
        return value

    def kept(column: Expr, width: int) -> Expr:
        return load(keep, slot, column, lanes=width)

    final: Callable[[Expr, int], Expr] = summed
    if finish.norm is not None:
        final = _normalised(finish.norm, outputs, lanes, n, summed, (keep, slot))
    if finish.rounds != "dynamic":

        def write(column: Expr, width: int) -> None:
            value = T.bind(final(column, width))
            if finish.floats:
                store(outputs.floats, value, number, column)
            if finish.rounds != "no":
                store(outputs.stored, rounded(value, finish, outputs, dot), number, column)

        each(n, lanes, write)
        return

    def bounds(column: Expr, width: int) -> tuple[Expr, Expr]:
        value = T.bind(final(column, width))
        store(keep, value, slot, column)
        return value, value

    low, high = row(n, lanes, (SMALLEST, LARGEST), bounds)
    inverse, zero = _range(low, high, number, outputs)
    each(
        n, lanes, lambda column, width: store(
            outputs.stored, quantized(kept(column, width), inverse, zero, dot), number, column
        )
    )  # fmt: skip


def _range(low: Expr, high: Expr, number: Expr, outputs: Outputs) -> tuple[Expr, Expr]:
    """(1 / scale, zero point as a float) of a row between low and high, which go to the outputs."""
    low, high = T.bind(T.min(low, T.float32(0))), T.bind(T.max(high, T.float32(0)))
    spread = T.bind(T.max(high - low, T.float32(1e-30)))
    inverse = T.bind(T.float32(255) / spread)
    zero = T.bind(T.nearbyint(T.float32(0) - low * inverse))
    T.buffer_store(outputs.scale, spread * T.float32(1 / 255), [number])
    T.buffer_store(outputs.zero, T.cast(zero, "int32"), [number])
    return inverse, zero


def _normalised(
    norm: Norm,
    outputs: Outputs,
    lanes: int,
    n: int,
    summed: Callable[[Expr, int], Expr],
    held: tuple[Any, Expr],
) -> Callable[[Expr, int], Expr]:
    """(column, lanes) -> the normalised row; its statistics are computed here, in two passes."""

    def kept(column: Expr, width: int) -> Expr:
        return load(held[0], held[1], column, lanes=width)

    share = tirx.const(1.0 / n, "float32")
    mean: Expr = None

    def centred(value: Expr, width: int) -> Expr:
        return value if mean is None else value - splat(mean, width)

    if norm.kind == "none":
        factor, read = None, summed
    else:
        read = kept

        def first(column: Expr, width: int) -> tuple[Expr]:
            value = T.bind(summed(column, width))
            store(held[0], value, held[1], column)
            return (value if norm.kind == "layer" else value * value,)

        (total,) = row(n, lanes, (SUM,), first)
        if norm.kind == "layer":
            mean = T.bind(total * share)

            def second(column: Expr, width: int) -> tuple[Expr]:
                value = T.bind(centred(kept(column, width), width))
                return (value * value,)

            (total,) = row(n, lanes, (SUM,), second)
        factor = T.bind(T.float32(1) / T.sqrt(total * share + tirx.const(norm.epsilon, "float32")))

    def final(column: Expr, width: int) -> Expr:
        value = centred(read(column, width), width)
        if factor is not None:
            value = value * splat(factor, width)
        if norm.scale:
            value = value * load(outputs.gamma, column, lanes=width)
        return value + load(outputs.beta, column, lanes=width) if norm.shift else value

    return final
