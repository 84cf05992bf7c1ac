"""What codes did to each weight of an fx program: its range, what it clipped, and its noise.

With E = W - W' and G = X^T X over the activations of the products with W, the signal to noise of these is
tr(W G W^T) / tr(E G E^T): no product is computed. Rows of a table count as often as they are looked up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ....ir.program import Program
from ...common.fx_weights import find
from ...manager.contract import Feed
from ..codes.fx_decode import decode
from ..trained.activations import statistics
from .layer import Layer, decibels, outside, ratio

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
