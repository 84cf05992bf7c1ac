"""Least squares for norms: scale and shift of each feature, towards what a norm gave."""

from __future__ import annotations

import numpy as np
import torch

from ....ir.blocks.base import Norm


class Scales:
    """Sums over rows, in float64, for y = scale * n + shift with n the normalised input, by feature."""

    def __init__(self, width: int, shifted: bool) -> None:
        self._shifted = shifted
        self._rows = 0
        self._n, self._nn, self._t, self._nt = (np.zeros(width) for _ in range(4))

    def add(self, normalised: torch.Tensor, targets: torch.Tensor) -> None:
        """More rows, (rows, width) each."""
        n, t = normalised.double().numpy(), targets.double().numpy()
        finite = np.isfinite(n).all(1) & np.isfinite(t).all(1)
        n, t = n[finite], t[finite]
        self._rows += len(n)
        self._n += n.sum(0)
        self._nn += (n * n).sum(0)
        self._t += t.sum(0)
        self._nt += (n * t).sum(0)

    def fitted(self, scale: np.ndarray, shift: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray]:
        """The best scale and shift, pulled towards these by `damping` times the mean sum of squares."""
        pull = damping * self._nn.mean() or 1.0
        a, d = self._nn + pull, self._rows + pull
        right, below = self._nt + pull * scale, self._t + pull * shift
        if not self._shifted:
            return right / a, shift
        inner = a * d - self._n**2
        return (d * right - self._n * below) / inner, (a * below - self._n * right) / inner


def normalised(norm: Norm, rows: torch.Tensor) -> torch.Tensor:
    """What a norm makes of (rows, width) before its scale and shift."""
    if norm.kind == "no_norm":
        return rows
    rows = rows.double()
    if norm.kind == "layer_norm":
        rows = rows - rows.mean(-1, keepdim=True)
    return rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + norm.epsilon)
