"""Finds out how far a program may be padded: it is run, in its own dialect, with padding and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ....ir.agreement import mismatch, moved_share, unverified, vacuity
from ....ir.inputs.cached import settled
from ....ir.inputs.probe import feed
from ....ir.program import Program
from ...bundles.feeds import Feed
from ...bundles.record import Padding
from ...runtimes.onnxruntime import OnnxRuntime
from ...runtimes.reference import Reference
from ..run.fitting import Input, cut

_IDS = ("token_ids", "decoder_token_ids")
# Relative distance of outputs that count as equal. Padding changes the range of a whole tensor's activations,
# so one quantized by its range moves a little, as it does under any caller's padding.
_EXACT, _QUANTIZED = 1e-3, 5e-2

Axes = tuple[tuple[str | None, ...], ...]


def padding_of(program: Program, sizes: Mapping[str, int] | None = None) -> Padding:
    """How calls of a program may be padded without changing their results.

    Rows may be added where every output has an axis for them, tokens where masking them leaves the others'
    results alone: an attention mask does that, and so does causal attention. Neither is believed, both are
    tried.

    Args:
        program: of either dialect.
        sizes: of every symbol, that fit each other; by default those of a cache and its mask do.

    Raises:
        BackendError: the program can't be run.
    """
    backend = OnnxRuntime() if program.dialect == "onnx" else Reference()
    run = backend.build(program, threads=1).run
    ids = next((spec for spec in program.inputs if spec.role in _IDS), None)
    shape = (ids or program.inputs[0]).shape
    batch = _symbol(program, shape[:1])
    length = _symbol(program, shape[1:2]) if ids else None
    symbols = dict.fromkeys(dim for spec in program.inputs for dim in spec.shape if isinstance(dim, str))
    more = symbols.keys() - {batch, length}  # of a cache or a second text: sizes depend on each other
    length = None if more else length
    token = int(program.info.get("pad_token_id") or 0)
    token = token if ids is None or token < (ids.high or token + 1) else 0
    small = {symbol: _within(program, symbol, 3 + 2 * number) for number, symbol in enumerate(symbols)}
    small = dict(sizes) if more and sizes else settled(program, small)
    given = feed(program, small)
    expected = list(run(given).values())
    near = _QUANTIZED if _quantized(program) else _EXACT
    for rows, tokens in ((batch, length), (batch, None), (None, length)):
        grown = dict(small)
        for symbol, growth in ((rows, 1), (tokens, 4)):
            if symbol:
                grown[symbol] = _within(program, symbol, small[symbol] + growth)
        if grown == small:
            continue
        found = list(run(_grown(program, given, grown, Padding(rows, tokens, (), token))).values())
        axes = _axes(expected, found, small, grown)
        if axes and (not rows or all(rows in each for each in axes)):
            results = [cut(array, each, small) for array, each in zip(found, axes, strict=True)]
            told = {str(number): vacuity([array]) for number, array in enumerate(expected)}
            if not unverified(told) and all(
                _agree(a, b, near) for a, b in zip(expected, results, strict=True)
            ):
                return Padding(rows, tokens, axes, token)
    return Padding(None, None, tuple((None,) * array.ndim for array in expected), token)


def _symbol(program: Program, dims: Sequence[int | str]) -> str | None:
    """The symbol that stands there, if it can have more than one size."""
    found = next((dim for dim in dims if isinstance(dim, str)), None)
    low, high = program.symbols.get(found or "", (1, 2))
    return found if low < high else None


def _within(program: Program, symbol: str, size: int) -> int:
    low, high = program.symbols.get(symbol, (1, size))
    return min(max(size, low), high)


def _grown(program: Program, given: Feed, sizes: Mapping[str, int], padding: Padding) -> Feed:
    padded = {}
    for spec in program.inputs:
        place = Input(spec, sizes, padding)
        place.fill(given[spec.name])
        padded[spec.name] = place.array
    return padded


def _axes(
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    small: Mapping[str, int],
    grown: Mapping[str, int],
) -> Axes | None:
    """The symbol that each axis of each output grew with; None where one grew with something else."""
    axes = []
    for before, after in zip(expected, found, strict=True):
        if before.ndim != after.ndim:
            return None
        named = [
            next((symbol for symbol in small if small[symbol] == a != b == grown[symbol]), None)
            for a, b in zip(before.shape, after.shape, strict=True)
        ]
        if any(a != b and name is None for a, b, name in zip(before.shape, after.shape, named, strict=True)):
            return None
        axes.append(tuple(named))
    return tuple(axes)


def _quantized(program: Program) -> bool:
    if program.dialect != "onnx":
        return False
    return any("Integer" in node.op_type or "Quantize" in node.op_type for node in program.graph.graph)


def _agree(expected: np.ndarray, found: np.ndarray, near: float) -> bool:
    if expected.dtype.kind in "iub":
        return not mismatch(expected, found)
    return moved_share([expected], [found]) <= near
