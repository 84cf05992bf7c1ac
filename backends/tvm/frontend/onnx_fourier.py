"""The discrete Fourier transform of ONNX (DFT, opsets 17 and 20) in Relax: a product with sines and cosines.

A file of its own beside onnx_operators, for its table is arithmetic that a test holds by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from .node import Node
from .rewriter import array, shape

_LARGEST = 1 << 28  # bytes of a table: 4096 complex points


def dft(node: Node) -> Any:
    """X[k] = sum over n of x[n] e^(-2 pi i k n / N) along one axis; pairs on the last axis are complex.

    x is (..., N, ..., 1 or 2), the result (..., K, ..., 2). A signal is cut or followed by zeros up to
    `dft_length`; of an inverse, the exponent is positive and the sum divided by N.
    """
    x, length, axis = node.operands(3)
    sizes = shape(x)
    at = int(node.attrs.get("axis", 1)) if node.opset < 20 else -2
    at = (at if axis is None else _number(node, axis, "an axis")) % len(sizes)
    points = sizes[at] if length is None else _number(node, length, "a length")
    inverse, onesided = bool(node.attrs.get("inverse", 0)), bool(node.attrs.get("onesided", 0))
    if onesided and (inverse or sizes[-1] != 1):
        raise node.unfit("one side of an inverse, or of complex numbers")
    count = points // 2 + 1 if onesided else points
    given = min(sizes[at], points)
    if given * sizes[-1] * count * 2 * 4 > _LARGEST:
        raise node.unfit(f"{points} points: its table would take more than {_LARGEST >> 20} MB")
    if given < sizes[at]:
        x = node.emit(relax.op.strided_slice(x, [at], [0], [given], [1]))
    turned = [i for i in range(len(sizes) - 1) if i != at]
    rows = node.emit(relax.op.permute_dims(x, [*turned, at, len(sizes) - 1]))
    kept = [sizes[i] for i in turned]
    flat = node.emit(relax.op.reshape(rows, (*kept, given * sizes[-1])))
    numbers = table(points, given, count, complex_input=sizes[-1] == 2, inverse=inverse)
    product = node.emit(relax.op.matmul(flat, relax.const(numbers, str(x.ty.dtype))))
    pairs = node.emit(relax.op.reshape(product, (*kept, count, 2)))
    last = len(sizes) - 1
    return relax.op.permute_dims(pairs, [*range(at), last - 1, *range(at, last - 1), last])


def table(points: int, given: int, count: int, complex_input: bool, inverse: bool) -> np.ndarray:
    """(given * (2 if complex else 1), count * 2) float64: what each given number adds to each result's real
    and imaginary part. Angles are taken within one turn, so that none loses digits."""
    turns = np.outer(np.arange(given), np.arange(count)) % points
    angle = 2 * np.pi * turns / points * (1 if inverse else -1)
    real, imaginary = np.cos(angle), np.sin(angle)
    blocks = [np.stack([real, imaginary], -1)]
    if complex_input:
        blocks.append(np.stack([-imaginary, real], -1))
    found = np.stack(blocks, 1).reshape(given * len(blocks), count * 2)
    return found / points if inverse else found


def _number(node: Node, value: Any, what: str) -> int:
    held = array(value)
    if held is None:
        raise node.unfit(f"{what} that is computed")
    return int(held.reshape(()))
