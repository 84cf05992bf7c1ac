"""What a pass says of the zeros that it made."""

from __future__ import annotations

from collections.abc import Sequence

from ....ir.program import Program
from ...common.fx_weights import Matrix
from ...manager.contract import Context
from ..timing.latency import Timing
from .matrices import weight
from .patterns import Sparsity
from .stored import sizes


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
