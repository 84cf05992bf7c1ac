"""smooth-quant: outliers of activations moved into the weights that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.onnx.graph import Editor
from ...ir.program import Program
from ..common.calibration import calibrate
from ..manager.contract import Context, Exact, Pass, Result
from .calibrate.sample import Sample
from .codes.affine import fit
from .codes.stored import StoredWeight, find
from .fit.rescale import Target, divide, foldable
from .int8.sites import quantized
from .int8.weights import Range, limit_for, quantize

ALPHAS = np.linspace(0, 1, 21)
WIDEST = 1024  # output features of a weight that the error is measured on
GAIN = 0.98  # of the error: what is not below that is not worth a change
_LEAST = 1e-5  # of the numbers that a scale comes from: a feature below is as good as unused


@dataclass(frozen=True)
class SmoothQuant(Pass):
    """Move activation outliers into weights, so that both quantize well: the same function in float.

            x = LayerNormalization(h, g, b); y = MatMul(x, w)
        ->  x = LayerNormalization(h, g / s, b / s); y = MatMul(x, s * w)

    Xiao et al., 2022, arXiv:2211.10438, equations 3 and 4: (x / s) (s W), s = max|x|^a / max|W|^(1 - a) for
    each feature. a is searched for every activation, for the least error of the int8 product on calibration
    rows. x / s costs nothing where it goes into the norm, the values' projection or the linear half of a
    feed-forward that makes x; where other nodes read x (norms after the residual sum) or a weight is shared,
    it cannot, and the activation is left alone.

    insert: divide with a Mul at run time where nothing takes the scale for free.
    weights: of the int8 products that are to come, as in quantize-static.
    """

    name: ClassVar[str] = "smooth-quant"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    insert: bool = False
    weights: Range = "auto"

    def requires(self) -> tuple[str, ...]:
        return ("calibration",)

    def run(self, program: Program, context: Context) -> Result:
        if (operator := quantized(program.graph)) is not None:
            return Result(program, False, notes=(f"the model is quantized already: it has {operator}",))
        limit, _ = limit_for(context.target, self.weights)
        found, misses = find(program)
        sites, shared = _sites(found)
        targets = foldable(program)
        able = {x: readers for x, readers in sites.items() if self.insert or _free(x, readers, targets)}
        notes = [
            f"{x.name}: left alone, {_why(x, readers, targets)}"
            for x, readers in sites.items()
            if x not in able
        ]
        samples = {str(x.name): Sample(r[0].shape[1], seed=context.seed) for x, r in able.items()}
        if samples:
            calibrate(program, samples, context)
        editor, folded, multiplied = Editor(program.graph), 0, 0
        gains: list[float] = []
        for number, (x, readers) in enumerate(able.items()):
            context.progress("searching how far to smooth", number, len(able))
            scale, gain = search(samples[str(x.name)], readers, limit)
            if gain > GAIN:
                notes.append(f"{x.name}: left alone, no scale lowers the error of its int8 products")
            elif context.allow(f"smooth {x.name}"):
                free = divide(editor, x, scale, readers, targets.get(x, ()))
                folded, multiplied = folded + free, multiplied + (not free)
                gains.append(gain)
        statistics: dict[str, int | float | str] = {
            "activations smoothed": f"{folded + multiplied} of {len(sites)}"
        }
        if multiplied:
            statistics["by a Mul at run time"] = multiplied
        if gains:
            statistics["error of their products"] = round(float(np.mean(gains)), 3)
        return Result(program, bool(gains), statistics, (*notes, *shared, *misses))


def search(sample: Sample, readers: Sequence[StoredWeight], limit: int) -> tuple[np.ndarray, float]:
    """The scale of each feature that loses least to int8, and its error over that without one.

    Args:
        sample: of the activation.
        readers: weights that it enters.
        limit: the largest |q| of a weight.

    Returns:
        float32 (features,) around 1; the squared error of the products with it, 1 for no scale at all.
    """
    matrices = [stored.matrix() for stored in readers]
    largest = np.max([np.abs(matrix).max(axis=0) for matrix in matrices], axis=0).astype(np.float64)
    matrices = [matrix[:: -(-len(matrix) // WIDEST)] for matrix in matrices]
    exact = [sample.rows @ matrix.T for matrix in matrices]
    magnitude = np.maximum(np.abs(sample.least), np.abs(sample.most))
    used = (magnitude > _LEAST) & (largest > _LEAST)
    names = [stored.name for stored in readers]
    ones = np.ones(len(magnitude), np.float32)
    best, least, plain = ones, np.inf, _error(sample, ones, matrices, exact, limit, names)
    for alpha in ALPHAS:
        scale = np.where(used, magnitude, 1) ** alpha / np.where(used, largest, 1) ** (1 - alpha)
        if used.any():
            scale /= np.sqrt(scale[used].max() * scale[used].min())
        scale = scale.astype(np.float32)
        error = _error(sample, scale, matrices, exact, limit, names)
        if error < least:
            best, least = scale, error
    return best, least / plain if plain > 0 else 1.0


def _error(
    sample: Sample,
    scale: np.ndarray,
    matrices: Sequence[np.ndarray],
    exact: Sequence[np.ndarray],
    limit: int,
    names: Sequence[str],
) -> float:
    """The squared error of int8 products, the activation divided by a scale and the weights multiplied."""
    low, high = (sample.least / scale).min(), (sample.most / scale).max()
    x = fit(low, high, 0, 255).simulate(sample.rows / scale)
    total = 0.0
    for matrix, wanted, name in zip(matrices, exact, names, strict=True):
        integers, steps = quantize((matrix * scale).T, limit, name)
        total += float(((x @ integers.astype(np.float32) * steps - wanted) ** 2).sum(dtype=np.float64))
    return total


def _sites(found: Sequence[StoredWeight]) -> tuple[dict[ir.Value, list[StoredWeight]], list[str]]:
    """Activations whose every product has a weight of its own, with those weights; and why others are not."""
    sites: dict[ir.Value, list[StoredWeight]] = {}
    spoiled: dict[ir.Value, str] = {}
    for stored in found:
        reason = ""
        if len(stored.uses) > 1:
            reason = f"'{stored.name}' is shared by {len(stored.uses)} nodes"
        elif stored.uses[0].kind not in ("product", "attention"):
            reason = f"'{stored.name}' enters no product over the last axis"
        for use in stored.products:
            assert use.other is not None
            sites.setdefault(use.other, []).append(stored)
            if reason:
                spoiled.setdefault(use.other, reason)
    notes = [f"{x.name}: left alone, {reason}" for x, reason in spoiled.items()]
    return {x: readers for x, readers in sites.items() if x not in spoiled}, notes


_Targets = Mapping[ir.Value, tuple[Target, ...]]


def _free(x: ir.Value, readers: Sequence[StoredWeight], targets: _Targets) -> bool:
    return not _why(x, readers, targets)


def _why(x: ir.Value, readers: Sequence[StoredWeight], targets: _Targets) -> str:
    """Why nothing takes an activation's scale for free; empty if something does."""
    nodes = {use.node for stored in readers for use in stored.products}
    others = [use.node for use in x.uses() if use.node not in nodes]
    if x not in targets:
        return "no norm, values' projection or linear half of a feed-forward of its own makes it"
    if others or x.is_graph_output():
        return f"{others[0].op_type if others else 'an output'} reads it too"
    return ""
