"""AWQ: inputs that carry large activations get finer steps.

Lin et al., 2023, arXiv:2306.00978. Multiplying an input's weights by s and dividing the input by s keeps the
product; after rounding, its error is smaller by about s as long as the group's range stays (section 3.2).
s = mean|x|^a, and a is the one of 20 between 0 and 1 that loses least at the products (eq. 5). Ranges are
shrunk afterwards (clip.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir.onnx.graph import Editor
from ....ir.program import Program
from ...common.cascade import Cascade
from ...manager.contract import Context
from ..codes.rounding import Coded, Scheme, checked, grid
from ..codes.stored import StoredWeight
from .clip import clip
from .moments import Moments, calibration, moments
from .rescale import divide, foldable


@dataclass
class Scaled:
    """How many activations were scaled in the weights that make them, and how many by a Mul."""

    folded: int = 0
    multiplied: int = 0


def by_awq(
    program: Program,
    weights: Sequence[StoredWeight],
    scheme: Callable[[Sequence[np.ndarray]], Scheme],
    context: Context,
) -> tuple[list[Coded], Scaled]:
    """Codes for each weight, in the order given; the program is edited in place so that they fit.

    A weight that several activations enter (shared layers) is rounded as it is.

    Args:
        weights: of products, by first use.
        scheme: how weights are stored that one activation enters, float32 (out, in) each.

    Raises:
        DataError: the calibration data won't do. WeightError: a weight has NaN or infinity.
    """
    sites: dict[ir.Value, list[StoredWeight]] = {}
    for stored in weights:
        entering = dict.fromkeys(use.other for use in stored.products)
        if len(entering) == 1:
            sites.setdefault(next(iter(entering)), []).append(stored)  # type: ignore[arg-type]
    feeds = calibration(program, context)
    cascade = Cascade(program, feeds, context.threads)
    scales: dict[ir.Value, np.ndarray] = {}
    grids: dict[ir.Value, tuple[Scheme, np.ndarray | float]] = {}
    for number, (x, readers) in enumerate(sites.items()):
        context.progress("searching scales", number, len(sites))
        found = moments(program, cascade, readers[0].products[0], feeds)
        matrices = [checked(stored.matrix(), stored.name) for stored in readers]
        chosen = scheme(matrices)
        scale = scales[x] = search(matrices, found, chosen)
        gram = found.gram / np.outer(scale, scale)
        for stored, matrix in zip(readers, matrices, strict=True):
            grids[stored.value] = chosen, clip(matrix * scale, gram, chosen)
    done = _rescaled(program, sites, scales)
    for stored in weights:
        if stored.value not in grids:
            grids[stored.value] = scheme([checked(stored.matrix(), stored.name)]), 1.0
    return [_rounded(stored, *grids[stored.value]) for stored in weights], done


def _rescaled(
    program: Program, sites: dict[ir.Value, list[StoredWeight]], scales: dict[ir.Value, np.ndarray]
) -> Scaled:
    editor, targets, done = Editor(program.graph), foldable(program), Scaled()
    for x, readers in sites.items():
        if (scales[x] == 1).all():
            continue
        if divide(editor, x, scales[x], readers, targets.get(x, ())):
            done.folded += 1
        else:
            done.multiplied += 1
    return done


def _rounded(stored: StoredWeight, scheme: Scheme, shrink: np.ndarray | float) -> Coded:
    matrix = checked(stored.matrix(), stored.name)
    return Coded.of(matrix, grid(matrix, scheme, shrink), scheme)


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
