"""Units of one block weighed together: two that do the same cost little each, and much both."""

from __future__ import annotations

import numpy as np


def elimination(fisher: np.ndarray) -> np.ndarray:
    """(units,): what the loss grows by when units go one after the other, the cheapest next each time.

    With the removed units' mask at 0 the loss grows by 1/2 of the sum of `fisher` over pairs of removed units
    (Kwon et al., 2022, arXiv:2204.09656, section 3.3, who rearrange a choice made by the diagonal; here the
    whole order is greedy). Later units never get less, so that the numbers keep the order.

    Args:
        fisher: (units, units), positive semi-definite.
    """
    growth = np.diag(fisher).astype(np.float64).copy()
    found = np.empty(len(growth))
    last = 0.0
    for _ in range(len(growth)):
        unit = int(np.argmin(growth))
        last = max(np.nextafter(last, np.inf), growth[unit])
        found[unit] = last
        growth += 2 * fisher[:, unit]
        growth[unit] = np.inf
    return found
