"""Ranges narrower than the weights, or a little wider, where that loses less at the product.

Narrower, the few weights clipped lose more and all others less; wider, the integers may fall on the weights
better. A search over eleven shares of the range, for each group alone: as in the code of AWQ (Lin et al.,
2023, arXiv:2306.00978) and, by mean squared error, of GPTQ, which both stop at the range itself.
"""

from __future__ import annotations

import numpy as np

from ..codes.rounding import Scheme, grid

_SHARES = np.linspace(1.1, 0.6, 11)


def clip(weight: np.ndarray, gram: np.ndarray | None, scheme: Scheme) -> np.ndarray:
    """What to multiply each group's range by, float32 (out, groups), so that its part loses least.

    Args:
        weight: float32 (out, in).
        gram: X X^T, (in, in); only inputs of one group are taken to go together. None: all count alike.
    """
    columns, group = weight.shape[1], scheme.group
    starts = range(0, columns, group)
    blocks = [None if gram is None else gram[i : i + group, i : i + group].astype(np.float32) for i in starts]

    def losses(shrink: np.ndarray | float) -> np.ndarray:
        error = grid(weight, scheme, shrink).simulate(weight) - weight
        parts = [error[:, i : i + group] for i in starts]
        return np.stack([_squares(e, b) for e, b in zip(parts, blocks, strict=True)], axis=1)

    least = losses(1.0)
    best = np.ones(least.shape, np.float32)
    for shrink in _SHARES:
        loss = losses(shrink)
        best, least = np.where(loss < least, np.float32(shrink), best), np.minimum(loss, least)
    return best


def _squares(error: np.ndarray, gram: np.ndarray | None) -> np.ndarray:
    return np.einsum("ij,ij->i", error if gram is None else error @ gram, error)
