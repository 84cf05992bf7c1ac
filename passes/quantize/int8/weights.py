"""Weights as signed 8-bit integers: symmetric, one scale per output feature, or one for all where asked.

q = round(w / s) with s = max|w| / limit, so that w is about q s and zero is exact (Jacob et al., 2018,
arXiv:1712.05877, section 2.1, with zero point 0; Krishnamoorthi, 2018, arXiv:1806.08342, on why one
scale per output feature).

Which limit: x86 without VNNI multiplies unsigned activations by signed weights with VPMADDUBSW, which adds
two products into a *16-bit* integer and saturates. 255 * 127 * 2 = 64,770 is past 32,767; 255 * 64 * 2 =
32,640 is not. So 7-bit weights (|q| <= 64) are exact there, and 8-bit ones (|q| <= 127) are not. With VNNI
(VPDPBUSD), AMX and on Arm products are added in 32 bits. Source: oneDNN, "Nuances of int8 computations".
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ....ir.errors import WeightError
from ...manager.contract import Hardware
from ..codes.affine import extremes, fit

FULL, REDUCED = 127, 64
Range = Literal["auto", "full", "reduced"]
_COLUMNS = 1024  # worked on at a time, so that temporaries stay small beside the weight


def limit_for(target: Hardware | None, wanted: Range = "auto") -> tuple[int, str]:
    """The largest |q| for a target, and why.

    Args:
        target: None is an unknown one.
        wanted: "auto" decides by the target; the others insist.
    """
    saturates = target is None or target.saturates
    machine = "the target is unknown" if target is None else f"target '{target.name}' has no VNNI"
    if wanted == "full":
        risk = f"; {machine}, and where there is none products of 8-bit weights may saturate"
        return FULL, "8-bit weights, as asked" + (risk if saturates else "")
    if wanted == "reduced":
        return REDUCED, "7-bit weights, as asked"
    if target is None or saturates:
        return REDUCED, f"7-bit weights: {machine}, and without it products of 8-bit ones saturate"
    return FULL, f"8-bit weights: target '{target.name}' adds int8 products in 32 bits"


def deepest(limit: int) -> int:
    """How many products of an unsigned byte and a weight surely fit a 32-bit accumulator."""
    return (2**31 - 1) // (255 * limit)


def quantize(
    weight: np.ndarray, limit: int, name: str, per_channel: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """One weight in integers.

    Args:
        weight: (in, out), any float dtype and strides.
        limit: the largest |q|.
        name: for the error.
        per_channel: False gives every output feature the scale of the largest.

    Returns:
        q, int8 (in, out), C-contiguous; scale, float32 (out,), positive and finite: 1 for a column of zeros.

    Raises:
        WeightError: the weight has NaN or infinity.
    """
    integers = np.empty(weight.shape, np.int8)
    scales = np.empty(weight.shape[1], np.float32)
    every = None if per_channel else np.float32(max(weight.max(initial=0), -weight.min(initial=0)))
    for start in range(0, weight.shape[1], _COLUMNS):
        block = weight[:, start : start + _COLUMNS].astype(np.float32)
        least, most = extremes(block, axis=1)
        if every is not None:
            least, most = np.full_like(least, -every), np.full_like(most, every)
        if not np.isfinite(most - least).all():
            raise WeightError(
                f"the weight '{name}' has NaN or infinite values and cannot be quantized: restore it from a "
                "sound checkpoint"
            )
        affine = fit(least, most, -limit, limit, symmetric=True)
        integers[:, start : start + _COLUMNS] = affine.quantize(block)
        scales[start : start + _COLUMNS] = affine.scale[0]
    return integers, scales
