"""Where an int8 product comes out wrong on a processor without VNNI.

There x86 multiplies unsigned activations by signed weights with VPMADDUBSW, which adds two neighbouring
products in 16 bits and saturates (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2,
VPMADDUBSW; oneDNN, "Nuances of int8 computations"). VNNI, AMX and Arm add in 32 bits. Weights alone tell
where that *can* happen: a pair of them overflows for some activation if its positive parts, or its negative
parts, add up to more than 32,767 / 255. Whether it does is seen by doing the sums as that instruction does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ....ir.execute import observe
from ....ir.program import Program
from ...manager.contract import Feed
from ..int8.integer import integer_products

LOWEST, HIGHEST = -(2**15), 2**15 - 1
ROWS = 64  # tokens of each product that are multiplied as VPMADDUBSW would
_ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class Saturation:
    """One product without VNNI.

    possible: share of its pairs of weights that overflow for some activation. seen: share of its sums of two
    that did, on data. error: of its 32-bit sums, root mean square, over their standard deviation among tokens
    (the zero point shifts all of a column alike, so it doesn't count).
    """

    layer: str
    possible: float
    seen: float
    error: float


def saturations(program: Program, feeds: Iterable[Feed], threads: int = 2) -> list[Saturation]:
    """Every int8 product of an onnx program, in order, on the first rows of what `feeds` bring it.

    Products of unsigned by unsigned integers are multiplied in 16 bits and added in 32 everywhere: never
    wrong, and listed so.
    """
    products = [(found, found.integers()) for found in integer_products(program.graph)]
    possible = {found.output: overflowing(weight) for found, weight in products}
    names = dict.fromkeys(str(found.activation.name) for found, _ in products if possible[found.output].any())
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    if names:
        for values in observe(program, list(names), feeds, threads):
            for name, array in values.items():
                left = ROWS - sum(map(len, rows[name]))
                if left > 0:
                    rows[name].append(array.reshape(-1, array.shape[-1])[:left])
    results = []
    for found, weight in products:
        pairs = possible[found.output]
        seen = error = 0.0
        if pairs.any() and (taken := rows[str(found.activation.name)]):
            seen, error = emulate(np.concatenate(taken), weight)
        results.append(Saturation(found.output, float(pairs.mean()), seen, error))
    return results


def overflowing(weight: np.ndarray) -> np.ndarray:
    """Which pairs of neighbouring weights overflow 16 bits for some unsigned activations: bool (in / 2, out).

    Args:
        weight: int8 or uint8 (in, out); an odd last row counts as paired with zeros.
    """
    if weight.dtype != np.int8:
        return np.zeros((-(-len(weight) // 2), weight.shape[1]), bool)
    first, second = _pairs(weight.astype(np.int32))
    highest = 255 * (np.maximum(first, 0) + np.maximum(second, 0))
    lowest = 255 * (np.minimum(first, 0) + np.minimum(second, 0))
    return (highest > HIGHEST) | (lowest < LOWEST)


def emulate(activation: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """(share of sums of two that saturate, error as in `Saturation`) with VPMADDUBSW.

    Args:
        activation: uint8 (rows, in); int8 is shifted by 128, as the kernels do.
        weight: int8 (in, out).
    """
    if activation.dtype == np.int8:
        activation = (activation.astype(np.int16) + 128).astype(np.uint8)
    upper, lower = _pairs(weight.astype(np.int32))
    saturated, lost, right = 0, [], []
    for start in range(0, len(activation), _ROWS_AT_ONCE):
        first, second = _pairs(activation[start : start + _ROWS_AT_ONCE].astype(np.int32).T)
        sums = first.T[:, :, None] * upper + second.T[:, :, None] * lower
        over = sums - np.clip(sums, LOWEST, HIGHEST)
        saturated += int(np.count_nonzero(over))
        lost.append(over.sum(axis=1, dtype=np.float64))
        right.append(sums.sum(axis=1, dtype=np.float64))
    spread = np.concatenate(right).std(axis=0)
    wrong = np.sqrt((np.concatenate(lost) ** 2).mean())
    scale = np.sqrt((spread**2).mean())
    return saturated / (len(activation) * upper.size), float(wrong / scale) if scale else float(wrong)


def _pairs(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows 0, 2, 4, ... and rows 1, 3, 5, ..., with zeros after an odd last one."""
    if len(matrix) % 2:
        matrix = np.concatenate([matrix, np.zeros_like(matrix[:1])])
    return matrix[0::2], matrix[1::2]
