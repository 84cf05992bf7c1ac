"""Norms as exporters spell them, and their formulas in float64."""

from __future__ import annotations

import numpy as np
from fusing import weights
from handmade import parsed

F32 = np.float32
TOLERANCE = 2e-6  # float32 rounding of normalised values
EPSILON = 1e-3  # large, so that losing it shows
CONSTANTS = {
    "two": F32(2), "half": F32(0.5), "epsilon": F32(EPSILON), "one": F32(1), "wrong_axis": np.array([1]),
    "last": np.array([-1]), **weights(w=(8,), b=(8,), bias=(8,), row=(1, 5, 8)),
}  # fmt: skip


def program(body, inputs="float[batch,length,8] x", outputs="float[batch,length,8] y", opset=18):
    return parsed(body, inputs, outputs, CONSTANTS, opset=opset)


CENTRED = "m = ReduceMean<keepdims = 1>(x, last) d = Sub(x, m)"
LAYER = {
    "pow, sqrt, div": f"{CENTRED} s = Pow(d, two) v = ReduceMean<keepdims = 1>(s, last) e = Add(v, epsilon) "
    "r = Sqrt(e) n = Div(d, r) g = Mul(n, w) y = Add(g, b)",
    "product, reciprocal": f"{CENTRED} s = Mul(d, d) v = ReduceMean<keepdims = 1>(s, last) "
    "e = Add(epsilon, v) r = Sqrt(e) i = Reciprocal(r) n = Mul(i, d) g = Mul(w, n) y = Add(b, g)",
}
RMS = {
    "pow, sqrt, reciprocal": "s = Pow(x, two) v = ReduceMean<keepdims = 1>(s, last) e = Add(v, epsilon) "
    "r = Sqrt(e) i = Reciprocal(r) n = Mul(x, i) y = Mul(w, n)",
    "product, div": "s = Mul(x, x) v = ReduceMean<keepdims = 1>(s, last) e = Add(v, epsilon) r = Sqrt(e) "
    "n = Div(x, r) y = Mul(n, w)",
}


def layer_norm(x, shift=True):
    """Ba et al., 2016, arXiv:1607.06450, equations 3 and 4, in float64."""
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return normal * CONSTANTS["w"] + (CONSTANTS["b"] if shift else 0)


def rms_norm(x):
    """Zhang and Sennrich, 2019, arXiv:1910.07467, equation 4, in float64."""
    x = x.astype(np.float64)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * CONSTANTS["w"]
