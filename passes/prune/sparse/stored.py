"""What zeros buy: bytes of weights in the forms that sparse weights are stored in. Counted, not estimated."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from .patterns import Sparsity

MB = 1e6


def sizes(matrices: Iterable[np.ndarray], pattern: Sparsity) -> dict[str, float]:
    """Megabytes (10^6 bytes) by form.

    "dense": as a runtime without sparse kernels has them. "bitmap": the numbers that stay, and a bit for each
    place; for n:m the numbers of each group and their places in it. "rows": the numbers that stay with the
    column of each and the start of each row (CSR; of blocks, BSR), in the fewest whole bytes. "deflated":
    dense, as a zip file holds it.

    Args:
        matrices: (outputs, inputs).
    """
    total = dict.fromkeys(("dense", "bitmap", "rows", "deflated"), 0.0)
    for weight in matrices:
        blocks = _blocks(weight, pattern.block)
        held = int(blocks.any(axis=(1, 3)).sum())
        numbers = held * blocks.shape[1] * blocks.shape[3] * weight.itemsize
        if pattern.few:
            n, m = pattern.few
            groups = weight.size // m
            bitmap = groups * n * weight.itemsize + groups * n * np.ceil(np.log2(m)) / 8
        else:
            bitmap = numbers + blocks.shape[0] * blocks.shape[2] / 8
        total["dense"] += weight.nbytes / MB
        total["bitmap"] += float(bitmap) / MB
        total["rows"] += (numbers + held * _bytes(blocks.shape[2]) + 4 * (blocks.shape[0] + 1)) / MB
        total["deflated"] += len(zlib.compress(np.ascontiguousarray(weight).tobytes(), 6)) / MB
    return total


def _blocks(weight: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """(rows of blocks, outputs, columns of blocks, inputs)."""
    (r, c), (rows, columns) = block, weight.shape
    return weight.reshape(rows // r, r, columns // c, c)


def _bytes(columns: int) -> int:
    return 1 if columns <= 1 << 8 else 2 if columns <= 1 << 16 else 4
