"""What a pass says of the zeros that it made."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from ....ir.program import Program
from ...common.fx_weights import Matrix
from ...lower.timed.timing import Timing
from ...manager.contract import Context
from .matrices import weight
from .patterns import Sparsity

MB = 1e6


def statistics(
    program: Program, matrices: Sequence[Matrix], pattern: Sparsity
) -> dict[str, int | float | str]:
    """How many zeros there are, and megabytes of the pruned matrices in each form."""
    weights = [weight(program, matrix) for matrix in matrices]
    total = sum(one.numel() for one in weights)
    found: dict[str, int | float | str] = {
        "matrices pruned": len(weights),
        "zeros": round(1 - sum(int(one.count_nonzero()) for one in weights) / total, 4),
    }
    named = {"dense": "MB", "bitmap": "MB with a bitmap", "rows": "MB by rows", "deflated": "MB deflated"}
    for form, size in sizes((one.numpy() for one in weights), pattern).items():
        found[named[form]] = round(size, 3)
    return found


def notes(before: Program, after: Program, context: Context) -> list[str]:
    """What zeros buy in bytes and in time: measured, where the context measures."""
    said = [
        "the weights are stored dense, zeros and all: a bundle is smaller only once it is packed (zip, an "
        "image layer), to the deflated size"
    ]
    if context.measure is None:
        return [*said, "a dense runtime multiplies by the zeros too: they buy no time"]
    times = Timing(before, context, "")(after)
    verdict = "they buy no time" if times < 1.02 else "measured here, they buy time"
    return [*said, f"the dense runtime is {times:.2f} times as fast with the zeros: {verdict}"]


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
    for matrix in matrices:
        blocks = _blocks(matrix, pattern.block)
        held = int(blocks.any(axis=(1, 3)).sum())
        numbers = held * blocks.shape[1] * blocks.shape[3] * matrix.itemsize
        if pattern.few:
            n, m = pattern.few
            groups = matrix.size // m
            bitmap = groups * n * matrix.itemsize + groups * n * np.ceil(np.log2(m)) / 8
        else:
            bitmap = numbers + blocks.shape[0] * blocks.shape[2] / 8
        total["dense"] += matrix.nbytes / MB
        total["bitmap"] += float(bitmap) / MB
        total["rows"] += (numbers + held * _bytes(blocks.shape[2]) + 4 * (blocks.shape[0] + 1)) / MB
        total["deflated"] += len(zlib.compress(np.ascontiguousarray(matrix).tobytes(), 6)) / MB
    return total


def _blocks(weight: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """(rows of blocks, outputs, columns of blocks, inputs)."""
    (r, c), (rows, columns) = block, weight.shape
    return weight.reshape(rows // r, r, columns // c, c)


def _bytes(columns: int) -> int:
    return 1 if columns <= 1 << 8 else 2 if columns <= 1 << 16 else 4
