"""Linears of few bits written as their kernel, with the norm before them and the residual sum behind."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ....ir.blocks.base import Blocks, Linear, Norm
from ....ir.blocks.walk import bare
from ....ir.values import Value, sizes
from ..kernels.codes import by_panel, codes_of, packed
from ..kernels.dot import halved
from ..kernels.few_bits import FewBits, columns_of, few_bits
from .coded import CodedWeight, Weight, coded, weight_of
from .site import Site, norm_of, vector, wide

# From so many rows on a product of floats is faster with the weight decoded once, as the module is compiled.
_FEW_ROWS = 16


def of_few_bits(blocks: Blocks) -> dict[Value, CodedWeight]:
    """The Linears that this kernel runs, by root."""
    found = {}
    for linear in blocks.linear:
        weight = coded(linear) if linear.axis == -1 else None
        rows = prod(sizes(linear.input)[:-1])
        if weight is not None and (weight.rounds or rows <= _FEW_ROWS):
            found[linear.root] = weight
    for feed in blocks.feed_forward:  # a gated pair is one product
        if feed.gate is not None and len({_kind(found.get(x.root)) for x in (feed.up, feed.gate)}) > 1:
            for linear in (feed.up, feed.gate):
                found.pop(linear.root, None)
    return found


def _kind(weight: CodedWeight | None) -> Any:
    return weight and (weight.group, weight.rounds)


def norm_before(blocks: Blocks, found: dict[Value, CodedWeight]) -> dict[Value, Norm]:
    """The norms whose results such Linears read, by the Linear's root."""
    norms = {norm.root: norm for norm in blocks.norm if _constant(norm)}
    inputs = {linear.root: bare(linear.input) for linear in blocks.linear if linear.root in found}
    return {root: norms[value] for root, value in inputs.items() if value in norms}


def _constant(norm: Norm) -> bool:
    return all(v is None or v.op == "const" for v in (norm.weight, norm.bias))


def write_few_bits(
    site: Site,
    linears: Sequence[Linear],
    features: Sequence[np.ndarray] | None = None,
    activation: str | None = None,
    gated: bool = False,
    residual: Any = None,
) -> Any:
    """A call of the kernel for Linears of one input side by side, or a gated pair; the rows of its result.

    Args:
        features: of each Linear's outputs, those that are asked for.
        gated: the second Linear's activated result multiplies the first's.
        residual: rows that are added.
    """
    em, machine = site.emitter, site.machine
    stored = [site.coded[linear.root] for linear in linears]
    weight, columns, part = weight_of(stored, features), columns_of(machine), stored[0]
    norm = site.norm_before.get(linears[0].root)
    source = norm.input if norm else linears[0].input
    chosen: list[Any] = (
        [slice(None)] * len(linears) if features is None else [f.reshape(-1) for f in features]
    )
    biases = [
        vector(linear.bias)[these]
        if linear.bias is not None
        else np.zeros(linear.out_features, np.float32)[these]
        for linear, these in zip(linears, chosen, strict=True)
    ]
    bias = np.concatenate(biases) if any(linear.bias is not None for linear in linears) else None
    n = weight.codes.shape[1] // (2 if gated else 1)
    if gated:
        weight = _each(weight, columns)
        bias = None if bias is None else halved(bias[:n], bias[n:], columns)
    rows = "int8" if part.rounds else "float32"
    how = codes_of(machine, rows, weight.bits)
    zeros, offsets = _zeros(weight.zeros - np.float32(how.shift))
    scales = _narrow(weight.scales)
    spec = FewBits(
        part.k, n, weight.bits, part.group, rows,  # type: ignore[arg-type]
        zeros + how.shift if isinstance(zeros, int) else zeros, str(scales.dtype),  # type: ignore[arg-type]
        norm_of(norm), bias is not None, activation, gated, residual is not None,
    )  # fmt: skip
    arguments = [em.rows(source)]
    if norm is not None:
        arguments += [em.constant(vector(v)) for v in (norm.weight, norm.bias) if v is not None]
    arguments.append(em.constant(packed(weight.codes, how, part.group, columns)))
    arguments.append(em.constant(by_panel(scales, columns)))
    arguments += [] if offsets is None else [em.constant(by_panel(offsets, columns))]
    if bias is not None:
        arguments.append(em.constant(wide(bias, -(-len(bias) // columns) * columns)))
    arguments += [] if residual is None else [residual]
    (result,) = em.kernel(
        f"few_bits_{rows}_{part.k}x{n}", ("few_bits", spec), lambda: few_bits(spec, machine), arguments,
        [((em.count(source), n), "float32")],
    )  # fmt: skip
    return result


def _each(weight: Weight, columns: int) -> Weight:
    """Two weights of equal width so that each panel has a stretch of both."""

    def both(array: np.ndarray) -> np.ndarray:
        first, second = np.split(array, 2, -1)
        return halved(first, second, columns)

    return Weight(both(weight.codes), both(weight.scales), both(weight.zeros), weight.bits)


def _zeros(zeros: np.ndarray) -> tuple[Any, np.ndarray | None]:
    """(what a kernel's spec says of them, what it reads): the narrowest that holds them exactly."""
    whole = bool((zeros == np.rint(zeros)).all())
    if whole and zeros.min() == zeros.max():
        return int(zeros.flat[0]), None
    for dtype in ("uint8", "int8") if whole else ():
        if np.iinfo(dtype).min <= zeros.min() and zeros.max() <= np.iinfo(dtype).max:
            return dtype, zeros.astype(dtype)
    narrow = _narrow(zeros)
    return str(narrow.dtype), narrow


def _narrow(array: np.ndarray) -> np.ndarray:
    """In float16 where that is exact: half the bytes to read."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if (half.astype(np.float32) == array).all() else array
