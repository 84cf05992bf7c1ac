"""One orthonormal matrix for all layers: the directions of the residual stream that are kept.

Principal directions of what the norms give, pooled over layers (SliceGPT: Ashkboos et al., 2024,
arXiv:2401.15024, section 3.3, has a basis a layer and a product with the change of basis on the stream; with
one for all nothing stands between).

Three things are asked of the basis of the space that they span. A LayerNorm takes the mean over the features
away, which is a projection too: where the ones are taken to the ones, LayerNorm and this change of basis
commute. A scale of features that could not be folded away is best followed by a basis in which it is nearly
diagonal; with all features kept that is the basis there was, in another order. Else: principal directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.fx import Node

from ....ir.errors import DataError
from ....ir.evaluated import evaluated
from ....ir.program import Program
from ...common.calibration import real_rows
from ...common.outputs import arguments
from ...manager.contract import Feed
from ...recover.training.own import watched


def moments(program: Program, sites: Sequence[Node], feeds: Sequence[Feed]) -> np.ndarray:
    """Second moments (features, features) of nodes' values, float64, padding left out: the mean over nodes,
    each divided by its sum of squares, so that all count alike.

    Raises:
        DataError: a node has no finite row that is not zero; named.
    """
    module = watched(evaluated(program).graph, list(sites))
    totals: list[np.ndarray | float] = [0.0] * len(sites)
    with torch.no_grad():
        for feed in feeds:
            seen = module(*arguments(program, feed))[len(program.outputs) :]
            for number, value in enumerate(seen):
                flat = real_rows(program, feed, value.double().numpy())
                totals[number] = totals[number] + flat.T @ flat
    for site, total in zip(sites, totals, strict=True):
        if not np.trace(np.atleast_2d(total)) > 0:
            raise DataError(
                f"the calibration data leaves '{site.name}' without one finite row: check the model's "
                "weights and the attention masks"
            )
    return sum(np.asarray(total) / np.trace(total) for total in totals) / len(totals)


def directions(gram: np.ndarray, width: int, scale: np.ndarray | None, mean: bool) -> np.ndarray:
    """(features, width) with orthonormal columns, float64.

    Args:
        gram: second moments (features, features).
        scale: (features,) that the basis should leave nearly diagonal, or None.
        mean: the vector of ones is kept, and taken to a vector of ones.
    """
    size = len(gram)
    ones = np.full((size, 1), size**-0.5)
    if mean:
        without = np.eye(size) - ones @ ones.T
        # The ones themselves come out last of all, with the value 0.
        leading = np.linalg.eigh(without @ gram @ without)[1][:, ::-1][:, : width - 1]
        space = np.linalg.qr(np.concatenate([ones, leading], axis=1))[0]
    else:
        space = np.linalg.eigh(gram)[1][:, ::-1][:, :width]
    if scale is not None:
        space = space @ np.linalg.eigh(space.T @ (scale[:, None] * space))[1]
    space = space * np.where(space.sum(axis=0) < 0, -1.0, 1.0)
    return space @ _turn((space.T @ ones)[:, 0], np.full(width, width**-0.5)) if mean else space


def _turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """R with start R = end for unit vectors, the rotation in their plane and nothing else."""
    both = start + end
    return np.eye(len(start)) + 2 * np.outer(start, end) - np.outer(both, both) / (1 + start @ end)
