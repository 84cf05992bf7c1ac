"""Linears whose weight lies in codes of few bits, decoded in the graph: MatMulNBits as it is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....ir.blocks.base import Linear
from ....ir.values import Value, sizes


@dataclass(frozen=True)
class CodedWeight:
    """A weight (codes - zeros) * scales: constants, codes (out, groups, group), the others (out, groups, 1).

    k: inputs; the last group may be longer. rounds: whether rows may be rounded to 8 bits (codes are int8).
    """

    codes: Value
    zeros: Value
    scales: Value
    k: int
    rounds: bool

    @property
    def group(self) -> int:
        return sizes(self.codes)[2]


@dataclass(frozen=True)
class Weight:
    """codes: uint8 [groups * group, out], below 2^bits. scales, zeros: float32 [groups, out]."""

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    bits: int

    def decoded(self, k: int) -> np.ndarray:
        """float32 [in, out]"""
        groups, n = self.scales.shape
        apart = self.codes.reshape(groups, -1, n).astype(np.float32)
        return ((apart - self.zeros[:, None]) * self.scales[:, None]).reshape(-1, n)[:k]


def coded(linear: Linear) -> CodedWeight | None:
    """How a Linear's weight is stored, where it is in codes."""
    value, k = linear.weight, linear.in_features
    if not linear.transposed or linear.groups != 1:
        return None
    if value.op == "slice" and value.attrs["axis"] == 1 and value.attrs["start"] == 0:
        value = value.inputs[0] or value
    if value.op != "reshape" or value.inputs[0] is None or value.inputs[0].op != "mul":
        return None
    difference, scales = value.inputs[0].inputs
    if difference is None or scales is None or difference.op != "sub":
        return None
    floats, zeros = difference.inputs
    if floats is None or zeros is None or floats.op != "cast" or floats.inputs[0] is None:
        return None
    codes = floats.inputs[0]
    if any(v.op != "const" for v in (codes, zeros, scales)) or codes.dtype not in ("uint8", "int8"):
        return None
    if (
        codes.shape is None
        or len(codes.shape) != 3
        or zeros.shape != scales.shape
        or scales.dtype != "float32"
    ):
        return None
    fits = scales.shape == (*codes.shape[:2], 1) and sizes(codes)[2] % 16 == 0
    return CodedWeight(codes, zeros, scales, k, codes.dtype == "int8") if fits else None


def weight_of(parts: Sequence[CodedWeight], features: Sequence[np.ndarray] | None = None) -> Weight:
    """Several weights of one input side by side, each with the outputs that are asked for."""
    codes: list[np.ndarray] = []
    scales: list[np.ndarray] = []
    zeros: list[np.ndarray] = []
    for number, part in enumerate(parts):
        chosen = slice(None) if features is None else features[number].reshape(-1)
        arrays = [value.const for value in (part.codes, part.scales, part.zeros)]
        for found, array in zip((codes, scales, zeros), arrays, strict=True):
            assert array is not None
            found.append(array[chosen])
    whole = np.concatenate(codes)
    offset = np.concatenate(zeros)[..., 0].T.astype(np.float32)
    few = whole.min(initial=0) >= 0 and whole.max(initial=0) < 16
    if whole.dtype == np.int8 and not few:
        whole, offset = whole.view(np.uint8) + np.uint8(128), offset + np.float32(128)
    n = len(whole)
    return Weight(
        np.ascontiguousarray(whole.reshape(n, -1).T.view(np.uint8)),
        np.concatenate(scales)[..., 0].T.astype(np.float32), offset, 4 if few else 8,
    )  # fmt: skip
