"""HQQ: zeros that leave the fewest large errors, found without data.

Badri and Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning Models"
(https://mobiusml.github.io/hqq_blog/): minimise |W - s (Q - z)|_p^p, p < 1, over z by half-quadratic
splitting. An auxiliary error E takes what is large (a shrinkage), then z is the mean that is left (a closed
form); the penalty that ties E to the true error grows each round. Outliers so weigh little, and zeros are
fractions. Errors are counted in steps of their group here, so that the penalty means the same for weights of
any size, and each group keeps the best zero of all rounds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..codes.affine import spread
from ..codes.rounding import Coded, Scheme, grid

NORM = 0.7
_ROUNDS, _PENALTY, _GROWTH = 20, 10.0, 1.01  # the authors' settings
_WHOLE = 8  # bits from which fractions gain nothing


def hqq(weight: np.ndarray, scheme: Scheme) -> Coded:
    """A weight on integers with fractional zeros; with 8 bits, where they gain nothing, whole ones.

    Args:
        weight: float32 (out, in).
    """
    bits, group = scheme.bits, scheme.group
    affine = grid(weight, replace(scheme, fractions=False))
    whole = affine.zero
    steps = weight / spread(affine.scale, weight.shape, group)
    zero = best = whole.astype(np.float32)
    starts = np.arange(0, weight.shape[1], group)
    sizes = np.diff(starts, append=weight.shape[1])
    least, penalty = np.full(zero.shape, np.inf, np.float32), _PENALTY
    for _ in range(_ROUNDS if bits < _WHOLE else 0):
        wide = spread(zero, weight.shape, group)
        codes = _codes(steps, wide, bits)
        error = steps - codes + wide
        loss = np.add.reduceat(np.abs(error) ** NORM, starts, axis=1)
        best, least = np.where(loss < least, zero, best), np.minimum(loss, least)
        codes -= steps - _shrink(error, penalty)
        zero = (np.add.reduceat(codes, starts, axis=1) / sizes).astype(np.float16).astype(np.float32)
        penalty *= _GROWTH
    final = whole if bits >= _WHOLE or not np.isfinite(best).all() else best
    codes = _codes(steps, spread(final, weight.shape, group), bits)
    return Coded(codes.astype(np.uint8), affine.scale, final, bits, group)


def _codes(steps: np.ndarray, zero: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(np.rint(steps + zero), 0, 2**bits - 1).astype(np.float32)


def _shrink(error: np.ndarray, penalty: float) -> np.ndarray:
    """The generalised soft threshold, sign(x) max(0, |x| - p |x|^(p - 1) / penalty): the best E for |E|_p."""
    sizes = np.abs(error)
    with np.errstate(divide="ignore"):  # at 0 the threshold is infinite, and 0 is right
        kept = np.maximum(sizes - NORM / penalty * sizes ** (NORM - 1), 0)
    return np.sign(error) * kept
