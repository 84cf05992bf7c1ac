"""Codes for weights that are taken one by one, without data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..codes.rounding import Coded, Scheme, checked, grid, round_to_nearest
from ..codes.stored import StoredWeight
from .clip import clip
from .hqq import hqq

_ROWS = 4096  # coded at a time, so that temporaries stay small


def without_data(stored: StoredWeight, method: str, scheme: Scheme) -> Coded:
    """A weight rounded to nearest ("rtn"), by HQQ ("hqq"), or, beside weights fitted to data, rounded to
    nearest on ranges clipped for the least squared error.

    Raises:
        WeightError: it has NaN or infinity.
    """
    by = {"rtn": round_to_nearest, "hqq": hqq}.get(method, _clipped)
    return by_rows(stored, lambda weight: by(weight, scheme))


def _clipped(weight: np.ndarray, scheme: Scheme) -> Coded:
    return Coded.of(weight, grid(weight, scheme, clip(weight, None, scheme)), scheme)


def by_rows(stored: StoredWeight, code: Callable[[np.ndarray], Coded]) -> Coded:
    """Codes by a method that looks at each row alone: float32 (rows, columns) to codes."""
    matrix = stored.matrix()
    parts = [code(checked(matrix[i : i + _ROWS], stored.name)) for i in range(0, len(matrix), _ROWS)]
    codes, scale, zero = (np.concatenate([getattr(p, n) for p in parts]) for n in ("codes", "scale", "zero"))
    return Coded(codes, scale, zero, parts[0].bits, parts[0].group)
