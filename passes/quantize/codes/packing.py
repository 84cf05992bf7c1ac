"""Codes of 1, 2, 3, 4 or 8 bits in bytes, and the tables with which a graph unpacks them.

The first code stands in a byte's lowest bits, as in ONNX's own 4-bit and 2-bit tensors and in MatMulNBits.
Three bits do not divide a byte: their two low bits and their high bit are packed apart, as two planes.

In a graph a packed byte is the index into `table`, which holds what its codes stand for, so that one Gather
and one Reshape unpack. ONNX's bit operators would do too, but only from opset 18 on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 8: (8,)}


def planes(bits: int) -> tuple[int, ...]:
    """Widths of the planes that codes of so many bits are packed in, the lowest bits first."""
    if bits not in _PLANES:
        raise ValueError(f"bits is {bits}, and codes are packed in {', '.join(map(str, _PLANES))}")
    return _PLANES[bits]


def pack(codes: np.ndarray, bits: int) -> tuple[np.ndarray, ...]:
    """Codes in bytes along the last axis.

    Args:
        codes: integers in [0, 2^bits), shape (..., n).

    Returns:
        One uint8 array (..., ceil(n * width / 8)) for each width of planes(bits); spare bits are 0.

    Raises:
        ValueError: a code has more bits.
    """
    if codes.size and not 0 <= codes.min() <= codes.max() < 2**bits:
        raise ValueError(
            f"codes go from {codes.min()} to {codes.max()}, and {bits} bits hold 0 to {2**bits - 1}"
        )
    packed, shift = [], 0
    for width in planes(bits):
        packed.append(_pack((codes.astype(np.uint8) >> shift) & (2**width - 1), width))
        shift += width
    return tuple(packed)


def unpack(packed: Sequence[np.ndarray], bits: int, count: int) -> np.ndarray:
    """The codes that `pack` packed, uint8 (..., count)."""
    codes, shift = np.zeros((*packed[0].shape[:-1], count), np.uint8), 0
    for plane, width in zip(packed, planes(bits), strict=True):
        part = table(width)[plane].reshape(*plane.shape[:-1], plane.shape[-1] * 8 // width)[..., :count]
        codes |= part << shift
        shift += width
    return codes


def table(width: int, values: np.ndarray | None = None) -> np.ndarray:
    """What each byte holds: (256, 8 // width), or (256, 8 // width, ...) for values with more axes.

    Args:
        width: of a plane: 1, 2, 4 or 8 bits.
        values: what each code stands for, (2^width, ...); the codes themselves, uint8, if None.
    """
    shifts = np.arange(0, 8, width)
    codes = (np.arange(256)[:, None] >> shifts) & (2**width - 1)
    return codes.astype(np.uint8) if values is None else values[codes]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that a row of so many codes takes, all planes together."""
    return sum(-(-count * width // 8) for width in planes(bits))


def _pack(codes: np.ndarray, width: int) -> np.ndarray:
    per_byte = 8 // width
    if spare := -codes.shape[-1] % per_byte:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], spare), np.uint8)], axis=-1)
    parts = codes.reshape(*codes.shape[:-1], codes.shape[-1] // per_byte, per_byte)
    packed = np.zeros(parts.shape[:-1], np.uint8)
    for place in range(per_byte):
        packed |= parts[..., place] << (place * width)
    return packed
