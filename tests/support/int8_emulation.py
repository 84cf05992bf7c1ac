"""ONNX Runtime's dynamic int8 product in integer arithmetic, as an independent reference.

Activations follow DynamicQuantizeLinear of the ONNX specification (opset 11). The product can saturate as
VPMADDUBSW does, which x86 without VNNI uses: pairs of neighbouring products are added in 16 bits.
"""

from __future__ import annotations

import numpy as np


def quantize_activation(x: np.ndarray) -> tuple[np.ndarray, np.float32, int]:
    """(integers, scale, zero point) of a whole tensor: [min(x, 0), max(x, 0)] onto [0, 255]."""
    low, high = min(np.float32(0), x.min()), max(np.float32(0), x.max())
    scale = np.float32((high - low) / np.float32(255))
    if scale == 0:
        return np.zeros(x.shape, np.int64), np.float32(1), 0
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64), scale, zero


def integer_product(x: np.ndarray, weight: np.ndarray, saturate: bool) -> np.ndarray:
    """Unsigned (rows, in) by signed (in, out) integers, exact in 64 bits, or with 16-bit pair sums."""
    if not saturate:
        return x @ weight.astype(np.int64)
    terms = x[:, :, None] * weight.astype(np.int64)[None]
    if terms.shape[1] % 2:
        terms = np.pad(terms, ((0, 0), (0, 1), (0, 0)))
    pairs = terms[:, 0::2] + terms[:, 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1)


def dynamic_product(
    x: np.ndarray, weight: np.ndarray, scale: np.ndarray, *, per_token: bool = False, saturate: bool = False
) -> np.ndarray:
    """x (rows, in) times int8 weight (in, out) with a scale per column, in float64."""
    if per_token:  # each row by its own largest magnitude, symmetric around 128
        rows = np.maximum(np.abs(x).max(axis=1, keepdims=True), np.float32(1e-30))
        x_scale, zero = np.float32(1 / 127), 128
        integers = np.rint(x / rows / x_scale).astype(np.int64) + zero
    else:
        rows = np.float32(1)
        integers, x_scale, zero = quantize_activation(x)
    sums = integer_product(integers, weight, saturate) - zero * weight.astype(np.int64).sum(axis=0)
    return sums * (np.float64(x_scale) * scale.astype(np.float64)) * rows
