"""Tables of sines and cosines by place: what they go on with is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_EXACT = 1e-3  # a float32 table of angles up to some thousands


def frequencies_of(table: Tensor) -> Tensor | None:
    """Radians a place of each pair of columns, float64, where a table (places, features) holds a sine and a
    cosine of each, of amplitude 1; None for any other table."""
    found = _pairs(table)
    return None if found is None else torch.from_numpy(found[1][0])


def waves(table: Tensor, places: int, frequencies: Tensor) -> Tensor:
    """The table with other frequencies and any number of places."""
    found = _pairs(table)
    assert found is not None
    (sine, cosine), (_, start) = found
    angles = np.arange(places)[:, None] * frequencies.numpy() + start
    made = np.empty((places, table.shape[1]))
    made[:, sine], made[:, cosine] = np.sin(angles), np.cos(angles)
    return torch.from_numpy(made).to(table.dtype)


def halved(table: Tensor) -> bool:
    """Whether a table holds sines or cosines alone: each place is told by the two before it."""
    if table.dim() != 2 or len(table) < 4 or not table.is_floating_point():
        return False
    values = table.double().numpy()
    if min(np.abs(values[0]).max(), np.abs(values[0] - 1).max()) > _EXACT or np.ptp(values) < _EXACT:
        return False
    middle, around = values[1:-1], values[2:] + values[:-2]
    twice = (middle * around).sum(0) / np.maximum((middle * middle).sum(0), 1e-12)
    return bool(np.abs(around - twice * middle).max() < _EXACT)


def _pairs(table: Tensor) -> tuple[tuple[slice, slice], tuple[np.ndarray, np.ndarray]] | None:
    """(columns of sines, of cosines), (frequencies, angles at the first place)."""
    if table.dim() != 2 or len(table) < 4 or table.shape[1] % 2 or not table.is_floating_point():
        return None
    values, half = table.double().numpy(), table.shape[1] // 2
    for sine, cosine in ((slice(half), slice(half, None)), (slice(0, None, 2), slice(1, None, 2))):
        s, c = values[:, sine], values[:, cosine]
        if np.abs(s * s + c * c - 1).max() > _EXACT:
            continue
        angles = np.unwrap(np.arctan2(s, c), axis=0)
        at = np.arange(len(values)) - (len(values) - 1) / 2
        slopes = at @ angles / (at @ at)
        start = angles.mean(0) + slopes * at[0]
        again = start + np.arange(len(values))[:, None] * slopes
        if np.abs(np.sin(again) - s).max() < _EXACT and np.abs(np.cos(again) - c).max() < _EXACT:
            return (sine, cosine), (slopes, start)
    return None
