"""Sizes that a file leaves free by name and its graph does not: channels of a convolution, widths of a
product, shapes that are written as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import onnx_ir as ir

from ..onnx.graph import OnnxView
from ..ops.shapes import broadcasts
from ..ops.symbolic import Shape, factors
from ..values import Dim, GraphValue

_ROUNDS = 64  # one size may follow from another
_CHANNELS = {"ai.onnx::BatchNormalization", "ai.onnx::InstanceNormalization", "ai.onnx::GroupNormalization"}
_RECURRENT = {"ai.onnx::LSTM", "ai.onnx::GRU", "ai.onnx::RNN"}
_CONVOLUTIONS = {"ai.onnx::Conv", "ai.onnx::ConvTranspose", "conv1d", "conv2d"}


def fix_sizes(model: ir.Model) -> dict[str, tuple[int, str]]:
    """Writes sizes that follow from the graph in place of their names, and one name for sizes that must be
    equal, in place.

    Returns:
        name -> (size, the node that asks for it), also of names that stand for another one now.
    """
    found: dict[str, tuple[int, str]] = {}
    stands: dict[str, str] = {}
    for _ in range(_ROUNDS):
        names = {_name(dim) for value in model.graph.inputs for dim in value.shape or ()} - {""}
        sizes: dict[str, tuple[int, str]] = {}
        alike: dict[str, str] = {}
        for value in OnnxView(model):
            for size, wanted in _equations(value):
                symbol = _solved(size, wanted)
                if symbol is not None and symbol[0] in names:
                    sizes.setdefault(symbol[0], (symbol[1], value.name))
                elif size in names and wanted in names and size != wanted:
                    alike.setdefault(str(wanted), str(size))
        if not sizes and not alike:
            break
        found |= sizes
        if sizes:
            _write(model, {name: size for name, (size, _) in sizes.items()})
        else:
            name, other = alike.popitem()
            stands[name] = other
            _write(model, {name: other})
    for name, other in reversed(stands.items()):
        if other in found:
            found[name] = found[other]
    return found


def _solved(size: Dim, wanted: Dim) -> tuple[str, int] | None:
    """The symbol in "4*width" = 32, and its size."""
    if not isinstance(size, str) or not isinstance(wanted, int) or wanted < 1:
        return None
    number, symbols = factors(size)
    if len(symbols) != 1 or wanted % number or not symbols[0].isidentifier():
        return None
    return symbols[0], wanted // number


def _equations(value: GraphValue) -> Iterator[tuple[Dim, Dim]]:
    """Pairs of sizes that must be equal for the operator to run, one a number that a constant has."""
    shapes = [None if each is None else each.shape for each in value.inputs]
    first = shapes[0] if shapes else None
    second = shapes[1] if len(shapes) > 1 else None
    if value.index or first is None:
        return
    if broadcasts(value.op):
        yield from _broadcast([x for x in value.inputs if x is not None])
    elif value.op == "reshape":
        yield from _reshaped(first, value.attrs["shape"])
    elif value.op == "concat":
        axis = value.attrs["axis"] % max(1, len(first))
        for other in shapes[1:]:
            if other is not None and len(other) == len(first):
                for i, (a, b) in enumerate(zip(first, other, strict=True)):
                    if i != axis:
                        yield from ((a, b), (b, a))
    elif second is None or not first or not second:
        return
    elif value.op == "matmul":
        inner = second[-2] if len(second) > 1 else second[0]
        yield from ((first[-1], inner), (inner, first[-1]))
    elif value.op == "linear":
        yield first[-1], second[1 if value.attrs["transposed"] else 0]
    elif value.op in ("layer_norm", "rms_norm"):
        yield first[-1], second[-1] if second[-1] != 1 else None
    elif len(first) > 1 and value.op in _CHANNELS:
        yield first[1], second[0]
    elif len(first) > 2 and value.op in _RECURRENT and len(second) == 3:
        yield first[2], second[2]
    elif len(first) > 2 and value.op in _CONVOLUTIONS and len(second) > 2:
        groups = value.attrs.get("groups", value.attrs.get("group", 1))
        turned = value.op == "ai.onnx::ConvTranspose"
        channels = second[0] if turned else second[1]
        yield first[1], channels * (1 if turned else groups) if isinstance(channels, int) else None


def _broadcast(operands: list[GraphValue]) -> Iterator[tuple[Dim, Dim]]:
    """A constant's size fixes the others', and two free sizes are one, unless one of them is always 1."""
    for first in operands:
        for second in operands:
            if first is second or first.shape is None or second.shape is None:
                continue
            for a, b in zip(reversed(first.shape), reversed(second.shape), strict=False):
                if isinstance(b, str) or (second.op == "const" and isinstance(b, int) and b > 1):
                    yield a, b


def _reshaped(source: Shape, target: Shape) -> Iterator[tuple[Dim, Dim]]:
    """A target without free sizes fixes the leading free sizes of what it reshapes."""
    if not all(isinstance(size, int) and size > 0 for size in target):
        return
    free = next((i for i, size in enumerate(source) if isinstance(size, int)), len(source))
    rest = source[free:]
    if not all(isinstance(size, int) for size in rest):
        return
    sizes: list[int] = [size for size in target if isinstance(size, int)]
    left = prod(size for size in rest if isinstance(size, int))
    if free == 1 and left and prod(sizes) % left == 0:
        yield source[0], prod(sizes) // left
    elif prod(sizes[free:]) == left:
        yield from zip(source[:free], sizes, strict=False)


def _write(model: ir.Model, sizes: Mapping[str, int | str]) -> None:
    for graph in model.graphs():
        results = [result for node in graph for result in node.outputs]
        for value in (*graph.inputs, *results):
            if value.shape is not None and any(_name(dim) in sizes for dim in value.shape):
                value.shape = ir.Shape([sizes.get(_name(dim), dim) for dim in value.shape])


def _name(dim: int | ir.SymbolicDim) -> str:
    return dim.value or "" if isinstance(dim, ir.SymbolicDim) else ""
