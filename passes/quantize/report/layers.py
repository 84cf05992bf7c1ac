"""What a quantizing step did to each layer: the range it got, its noise, its kernel and its time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ....ir.onnx.profile import profile
from ....ir.program import Program
from ...common.fx_activations import statistics
from ...common.fx_weights import find
from ...manager.contract import Feed
from ..codes.fx_decode import decode
from .int8_layers import int8_layers, int8_products
from .layer import Layer, decibels, outside, ratio
from .packed_layers import packed_layers
from .packed_uses import packed_uses

_FEEDS = 4  # whose activations and ids are looked at


def fx_layers(before: Program, after: Program, feeds: Sequence[Feed]) -> list[Layer]:
    """A layer for the products with each weight that `after` has as codes, and one for its lookups."""
    coded = [(one, codes) for one in find(before)[0] if (codes := decode(after.graph, one)) is not None]
    if not coded:
        return []
    seen = statistics(before, [one for one, _ in coded], feeds[:_FEEDS])
    found = []
    for one, decoded in coded:
        floats, now = one.numbers().numpy().astype(np.float64), decoded.numpy()
        error, (gram, counts) = floats - now, seen[one.name]
        ratios = {}
        if gram is not None:
            call, _, _ = one.products[0]
            ratios[call.name] = ratio(_energy(floats, gram), _energy(error, gram))
        if counts is not None:
            call, _ = one.lookups[0]
            ratios[call.name] = ratio(*(float(counts @ (part**2).sum(axis=1)) for part in (floats, error)))
        for layer, snr in ratios.items():
            found.append(
                Layer(
                    layer, one.name, "decoded in the graph",
                    float(now.min(initial=0)), float(now.max(initial=0)), outside(floats, now),
                    math.inf, decibels(floats, now), snr, None, None,
                )
            )  # fmt: skip
    return found


def _energy(matrix: np.ndarray, gram: np.ndarray) -> float:
    """The trace of M G M^T: the squared norm of all products."""
    return float(((matrix @ gram) * matrix).sum())


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
