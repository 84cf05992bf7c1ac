"""What a quantizing step did to each layer: the range it got, its noise, its kernel and its time."""

from __future__ import annotations

from collections.abc import Sequence

from ....ir.onnx.profile import profile
from ....ir.program import Program
from ...manager.contract import Feed
from .int8_layers import int8_layers, int8_products
from .layer import Layer
from .packed_layers import packed_layers
from .packed_uses import packed_uses


def layers(
    before: Program, after: Program, feeds: Sequence[Feed], workload: Feed, threads: int = 2
) -> list[Layer]:
    """Every use of a weight of `before` that `after` has in integers or packed, worst first.

    Args:
        before: the program that was quantized, of the dialect of `after`; its weights are read by name.
        feeds: what activations are seen on.
        workload: what the kernels of ONNX programs are timed on.
    """
    if before.dialect == "fx":
        from .fx_layers import fx_layers  # torch stays out of programs that need none

        found = fx_layers(before, after, feeds)
    else:
        products = int8_products(before, after)
        uses = packed_uses(before, after, {weight for _, weight in products})
        if not products and not uses:
            return []
        timed = profile(before.graph, workload, threads), profile(after.graph, workload, threads)
        found = [
            *int8_layers(products, before, after, feeds, timed, threads),
            *packed_layers(uses, after, feeds, timed, threads),
        ]
    return sorted(found, key=lambda layer: layer.snr)
