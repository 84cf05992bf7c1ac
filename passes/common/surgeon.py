"""Structured optimal brain surgeon: whole units of a product's input removed, the rest refitted exactly.

ZipLM (Kurtic, Frantar and Alistarh, 2023, arXiv:2302.04089), section 3.1 and algorithm 1. A product y = W x
is to give targets t on calibration rows: |W x - t|^2 is quadratic in W, with one Hessian H = sum x x^T for
every row of W. Removing the inputs S of a unit and moving the other weights to their new optimum costs
w_S (H^-1_SS)^-1 w_S^T, summed over rows; the unit that costs least goes, W and H^-1 are brought up to date by
block elimination, and so on. With the targets of the unpruned product that is ZipLM; other targets start from
their own optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dgemm

from ...ir.errors import DataError

SHRINK = 0.75  # of the inputs left, before those that went are no longer computed on


@dataclass(frozen=True)
class Moments:
    """Second moments of a product's rows, in float64.

    gram: sum x x^T, (in, in). cross: sum x t^T, (in, out). energy: sum |t|^2. rows: how many. A product with
    a bias has one more input, the last, that is always 1.
    """

    gram: np.ndarray
    cross: np.ndarray
    energy: float
    rows: int

    @classmethod
    def none(cls) -> Moments:
        """Of no rows."""
        return cls(np.zeros(()), np.zeros(()), 0.0, 0)

    def plus(self, inputs: torch.Tensor, targets: torch.Tensor, constant: bool) -> Moments:
        """With more rows: (rows, in) and (rows, out), where both are finite. constant: an input of 1 more."""
        finite = inputs.isfinite().all(dim=-1) & targets.isfinite().all(dim=-1)
        x, t = inputs[finite].float(), targets[finite].float()
        if constant:
            x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        return Moments(
            self.gram + (x.T @ x).double().numpy(),
            self.cross + (x.T @ t).double().numpy(),
            self.energy + float(t.double().square().sum()),
            self.rows + len(x),
        )

    def error(self, weight: np.ndarray) -> float:
        """sum |W x - t|^2 / sum |t|^2 of a weight (in, out), as `gram` has its inputs."""
        product = np.einsum("io,io->", weight, self.gram @ weight) - 2 * np.einsum(
            "io,io->", weight, self.cross
        )
        return float((product + self.energy) / self.energy) if self.energy else 0.0


class Surgeon:
    """The least-squares problem of one product.

    Args:
        moments: of its rows.
        weight: (in, out) as it is, the bias its last row where `moments` has one. Damping pulls towards it.
        units: the input positions of each unit, disjoint. Inputs of none are never removed.
        damping: times the mean of the diagonal of H, added to it.

    Raises:
        DataError: there are no rows, or they are not finite.
    """

    def __init__(
        self, moments: Moments, weight: np.ndarray, units: Sequence[np.ndarray] = (), damping: float = 1e-2
    ) -> None:
        if not moments.rows or not np.isfinite(moments.energy) or not np.isfinite(moments.gram).all():
            raise DataError("there are no finite calibration rows to refit weights on: give it real inputs")
        self._moments, self._damping = moments, damping
        self.units = [np.asarray(unit) for unit in units]
        pull = damping * float(np.trace(moments.gram)) / len(moments.gram) or 1.0
        self._hessian = moments.gram + pull * np.eye(len(moments.gram))
        self._right = moments.cross + pull * weight

    def fitted(self, removed: Sequence[int] = ()) -> np.ndarray:
        """The best weight, (in, out), that is 0 where units are removed."""
        gone = np.zeros(len(self._hessian), bool)
        for unit in removed:
            gone[self.units[unit]] = True
        kept = np.flatnonzero(~gone)
        weight = np.zeros_like(self._right)
        if len(kept):
            factor = cho_factor(self._hessian[np.ix_(kept, kept)], lower=True)
            weight[kept] = cho_solve(factor, self._right[kept])
        return weight

    def scaled(self, weight: np.ndarray) -> np.ndarray:
        """The weight times the best factor for each input, pulled towards 1."""
        hessian = self._moments.gram * (weight @ weight.T)
        right = np.einsum("io,io->i", weight, self._moments.cross)
        pull = self._damping * float(np.trace(hessian)) / len(hessian) or 1.0
        factors = cho_solve(cho_factor(hessian + pull * np.eye(len(hessian))), right + pull)
        return np.asarray(factors[:, None] * weight)

    def order(self, together: int = 1) -> list[int]:
        """Every unit, in the order in which they are best removed.

        Args:
            together: how many are removed at a time, where units are single inputs: their costs are taken as
                if they were unrelated.
        """
        inverse = cho_solve(cho_factor(self._hessian, lower=True), np.eye(len(self._hessian)))
        weight = inverse @ self._right
        inputs = np.arange(len(inverse))  # those that are computed on, and where each of all is among them
        place = inputs.copy()
        left = list(range(len(self.units)))
        there = np.ones(len(inverse), bool)
        found: list[int] = []
        while left:
            costs = _costs(inverse, weight, [place[self.units[unit]] for unit in left])
            first = [left[i] for i in np.argsort(costs, kind="stable")[:together]]
            gone = np.concatenate([place[self.units[unit]] for unit in first])
            block = cho_factor(inverse[np.ix_(gone, gone)], lower=True)
            down = inverse[:, gone]
            weight -= down @ cho_solve(block, weight[gone])
            # In place: symmetric, so its transpose is the column-major matrix that BLAS asks for.
            inverse = dgemm(-1.0, down, cho_solve(block, down.T), 1.0, inverse.T, overwrite_c=1).T
            found += first
            left = [unit for unit in left if unit not in first]
            there[gone] = False
            if there.sum() < SHRINK * len(there):
                inputs, weight = inputs[there], weight[there]
                inverse = np.ascontiguousarray(inverse[np.ix_(there, there)])
                place[inputs] = np.arange(len(inputs))
                there = np.ones(len(inverse), bool)
        return found


def _costs(inverse: np.ndarray, weight: np.ndarray, units: Sequence[np.ndarray]) -> np.ndarray:
    """What the removal of each unit adds to the squared error."""
    if all(len(unit) == 1 for unit in units):
        place = np.concatenate(units)
        return np.square(weight[place]).sum(1) / inverse[place, place]
    return np.array(
        [
            np.einsum("io,io->", weight[unit], np.linalg.solve(inverse[np.ix_(unit, unit)], weight[unit]))
            for unit in units
        ]
    )
