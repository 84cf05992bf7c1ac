"""AWQ: inputs that carry large activations get finer steps.

Lin et al., 2023, arXiv:2306.00978. Multiplying an input's weights by s and dividing the input by s keeps the
product; after rounding, its error is smaller by about s as long as the group's range stays (section 3.2).
s = mean|x|^a, and a is the one of 20 between 0 and 1 that loses least at the products (eq. 5). Ranges are
shrunk afterwards (clip.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..codes.rounding import Scheme, grid
from .moments import Moments

_POWERS = 20
_ROWS = 256  # of each product, evenly spread, are enough to rank scales
_LEAST = 1e-4


def search(weights: Sequence[np.ndarray], moments: Moments, scheme: Scheme) -> np.ndarray:
    """The scale of each input, float32 (in,), that loses least over the products it enters; ones if none.

    Args:
        weights: float32 (out, in) each.
    """
    gram = moments.gram.astype(np.float32)
    weights = [w[:: max(1, len(w) // _ROWS)] for w in weights]
    best, least = np.ones(len(moments.magnitude), np.float32), np.inf
    for power in np.arange(_POWERS) / _POWERS:
        scale = np.maximum(moments.magnitude**power, _LEAST).astype(np.float32)
        scale /= np.sqrt(scale.max() * scale.min())
        loss = sum(_loss(grid(w * scale, scheme).simulate(w * scale) / scale - w, gram) for w in weights)
        if loss < least:
            best, least = scale, loss
    return best


def _loss(error: np.ndarray, gram: np.ndarray) -> float:
    """Mean squared error of a product: the trace of E G E^T."""
    return float(np.einsum("ij,ij->", error @ gram, error, dtype=np.float64))
