"""How long each axis of each input and output may be, and why: what inspect, the report and a bundle say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..spec import UNBOUNDED, InputSpec


class Described(Protocol):
    """A Program or a bundle's Manifest. info["sizes"] holds "reasons" (by symbol, or by "input.axis" for an
    axis of one size) and "outputs" (per output a list of integers, symbols and expressions of symbols)."""

    @property
    def inputs(self) -> tuple[InputSpec, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def symbols(self) -> Mapping[str, tuple[int, int]]: ...
    @property
    def info(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Extent:
    """One axis. size: a number, a symbol, or an expression of symbols where it is computed from theirs. low,
    high: inclusive; None where it is computed. reason: why it is not free, or empty where nobody knows."""

    name: str
    axis: int
    size: int | str
    kind: Literal["free", "bounded", "fixed", "computed"]
    low: int | None
    high: int | None
    reason: str = ""


def extents(program: Described) -> tuple[Extent, ...]:
    """Every axis of every input, then of every output whose shape is known."""
    known = program.info.get("sizes", {})
    shapes: list[tuple[str, Sequence[int | str]]] = [(spec.name, spec.shape) for spec in program.inputs]
    shapes += [(name, shape) for name, shape in known.get("outputs", {}).items() if name in program.outputs]
    return tuple(
        _extent(program.symbols, known.get("reasons", {}), name, axis, size)
        for name, shape in shapes
        for axis, size in enumerate(shape)
    )


def _extent(
    symbols: Mapping[str, tuple[int, int]], reasons: Mapping[str, str], name: str, axis: int, size: int | str
) -> Extent:
    if isinstance(size, int):
        return Extent(name, axis, size, "fixed", size, size, reasons.get(f"{name}.{axis}", ""))
    if size not in symbols:
        return Extent(name, axis, size, "computed", None, None)
    low, high = symbols[size]
    if low == high:
        return Extent(name, axis, size, "fixed", low, high, reasons.get(size, ""))
    kind: Literal["free", "bounded"] = "free" if low <= 1 and high >= UNBOUNDED else "bounded"
    return Extent(name, axis, size, kind, low, high, reasons.get(size, ""))


def told(program: Described) -> list[str]:
    """A line for every symbol and for every input's axes of one size."""
    lines = []
    for symbol in dict.fromkeys(d for spec in program.inputs for d in spec.shape if isinstance(d, str)):
        each = next(e for e in extents(program) if e.size == symbol)
        lines.append(f"{symbol} {_span(each)}{_because(each)}")
    for spec in program.inputs:
        fixed: dict[str, list[str]] = {}
        for each in extents(program):
            if each.name == spec.name and isinstance(each.size, int):
                fixed.setdefault(_because(each), []).append(f"axis {each.axis} of {each.size}")
        for reason, axes in fixed.items():
            verb = "is" if len(axes) == 1 else "are"
            lines.append(f"{spec.name}: {', '.join(axes)} {verb} fixed{reason}")
    return lines


def _span(extent: Extent) -> str:
    if extent.low == extent.high:
        return f"is {extent.low}"
    if extent.high is None or extent.high >= UNBOUNDED:
        return "is free" if (extent.low or 0) <= 1 else f"is {extent.low} or more"
    return f"is {extent.low} to {extent.high}"


def _because(extent: Extent) -> str:
    return f" ({extent.reason})" if extent.reason else ""
