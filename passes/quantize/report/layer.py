"""One row of the layer report, and the two measures that all its makers share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ....ir.onnx.kernels import Kernel

ROWS = 256  # tokens of each layer that are looked at

Timed = Sequence[tuple[Kernel, float]]  # the kernels of a program, with the seconds of each


@dataclass(frozen=True)
class Layer:
    """One use of a quantized weight.

    layer: the value it gives. weight: the float weight it was made from. kernel: what ran.
    low, high: the range of what was rounded: of the activation where it became integers, else of the decoded
    weight. clipped: the share of it outside: of activations; or of float weights outside the range of the
    decoded ones of their output feature (of a table: of their row).
    activation_snr, weight_snr, snr: decibels, of the activation (infinite where it stayed in float), of the
    weight, and of what both give. before_us, after_us: microseconds of the float kernel and of what came in
    its place; None where it was not found.
    """

    layer: str
    weight: str
    kernel: str
    low: float
    high: float
    clipped: float
    activation_snr: float
    weight_snr: float
    snr: float
    before_us: float | None
    after_us: float | None


def origin(name: str, names: Mapping[str, object]) -> str | None:
    """The weight that a quantized one was made from: passes name what they derive NAME.something."""
    while name not in names:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def outside(floats: np.ndarray, decoded: np.ndarray) -> float:
    """Share of floats outside the range of their row's decoded ones; both (rows, any)."""
    if not floats.size:
        return 0.0
    low, high = decoded.min(axis=1, keepdims=True), decoded.max(axis=1, keepdims=True)
    return float(((floats < low) | (floats > high)).mean())


def decibels(signal: np.ndarray, found: np.ndarray) -> float:
    """10 log10(sum y^2 / sum (y - y')^2) (Lin et al., 2016, arXiv:1511.06393, eq. 1)."""
    signal = signal.astype(np.float64, copy=False)
    return ratio(float((signal**2).sum()), float(((signal - found) ** 2).sum()))


def ratio(power: float, noise: float) -> float:
    """Signal to noise in decibels; infinite where there is no noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power else -math.inf


def to_json(found: Sequence[Layer]) -> list[dict[str, Any]]:
    """As a manifest holds them; infinite ratios are null."""
    return [
        {
            key: None if value in (float("inf"), float("-inf")) else value
            for key, value in asdict(each).items()
        }
        for each in found
    ]


def of_json(record: Mapping[str, Any]) -> Layer:
    """The layer that a manifest's record says."""
    ratios = {key: float("inf") for key in ("activation_snr", "weight_snr", "snr") if record.get(key) is None}
    return Layer(**{**record, **ratios})
