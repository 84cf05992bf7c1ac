"""The uniform affine mapping between numbers and small integers: x is about scale * (q - zero).

Jacob et al., 2018, arXiv:1712.05877, section 2.1; symmetric (zero is 0) and asymmetric forms as in
Krishnamoorthi, 2018, arXiv:1806.08342, sections 2.1 to 2.3. Scales and zeros come per tensor, per channel or
per group: arrays of the rank of x, with one entry per axis, per index or per run of `group` indices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TINY = np.finfo(np.float32).tiny  # the smallest scale: below it float32 loses digits


def integers(bits: int, signed: bool = False, narrow: bool = False) -> tuple[int, int]:
    """The smallest and largest integer of so many bits; narrow leaves out the most negative one."""
    if not 1 <= bits <= 16:
        raise ValueError(f"bits is {bits}, and an integer here has 1 to 16")
    if not signed:
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)) + (1 if narrow else 0), 2 ** (bits - 1) - 1


@dataclass(frozen=True)
class Affine:
    """A mapping onto the integers low to high.

    scale: float32, positive. zero: int32, the integer that stands for 0.0; or float32, between two integers,
    where 0.0 need not be met exactly. Both have the rank of the numbers mapped, or none (per tensor); along
    each axis their size is 1, the axis's, or its number of groups (the last may be short).
    group: indices to a group, along the axes where the sizes say so.
    """

    scale: np.ndarray
    zero: np.ndarray
    low: int
    high: int
    group: int = 1

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Integers for numbers, halves to even, clipped: uint8, int8 or, past 8 bits, int32."""
        steps = x / spread(self.scale, x.shape, self.group)
        zero = spread(self.zero, x.shape, self.group)
        if self.zero.dtype.kind == "f":
            steps += zero
            steps = np.rint(steps, out=steps)
        else:
            steps = np.rint(steps, out=steps)
            steps += zero
        return np.clip(steps, self.low, self.high, out=steps).astype(self.dtype)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Numbers for integers, float32."""
        steps = q.astype(np.float32) - spread(self.zero, q.shape, self.group).astype(np.float32)
        steps *= spread(self.scale, q.shape, self.group)
        return steps

    def simulate(self, x: np.ndarray) -> np.ndarray:
        """What is left of numbers that went through the integers, float32 ("fake quantization")."""
        return self.dequantize(self.quantize(x))

    @property
    def dtype(self) -> type[np.integer]:
        if self.low >= 0 and self.high <= 255:
            return np.uint8
        return np.int8 if self.low >= -128 and self.high <= 127 else np.int32


def fit(
    least: np.ndarray | float,
    most: np.ndarray | float,
    low: int,
    high: int,
    *,
    symmetric: bool = False,
    group: int = 1,
) -> Affine:
    """The mapping that takes the range [least, most], widened to hold 0, onto low to high.

    Symmetric: zero is 0, or the middle (low + high + 1) // 2 of unsigned integers, and the scale is that of
    the larger magnitude. A range that is only 0 gets scale 1.
    """
    least = np.minimum(np.asarray(least, np.float64), 0)
    most = np.maximum(np.asarray(most, np.float64), 0)
    if symmetric:
        middle = 0 if low < 0 else (low + high + 1) // 2
        zero = np.full(least.shape, middle, np.int32)
        scale = np.maximum(-least, most) / (high - middle or middle - low)  # one bit has nothing above
    else:
        scale = (most - least) / (high - low)
    scale = np.where((least == 0) & (most == 0), 1.0, np.maximum(scale, TINY))
    if not symmetric:
        zero = np.rint(low - least / scale).astype(np.int32)
    return Affine(scale.astype(np.float32), zero, low, high, group)


def extremes(
    x: np.ndarray, axis: int | tuple[int, ...] | None = None, group: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest number per tensor, per channel or per group, shaped for `fit`.

    Args:
        x: numbers of any float dtype.
        axis: kept axes, each index with a range of its own; None for one range.
        group: so many indices of the last axis share a range, the last run may be short; None for all.
    """
    kept = () if axis is None else (axis,) if isinstance(axis, int) else axis
    kept = tuple(a % x.ndim for a in kept)
    if group is None:
        rest = tuple(a for a in range(x.ndim) if a not in kept)
        return x.min(axis=rest, keepdims=True), x.max(axis=rest, keepdims=True)
    starts = np.arange(0, x.shape[-1], group)
    rest = tuple(a for a in range(x.ndim - 1) if a not in kept)
    least, most = (f.reduceat(x, starts, axis=-1) for f in (np.minimum, np.maximum))
    return least.min(axis=rest, keepdims=True), most.max(axis=rest, keepdims=True)


def spread(parameter: np.ndarray, shape: tuple[int, ...], group: int) -> np.ndarray:
    """A scale or zero per element, by broadcasting where it can be left to NumPy."""
    for axis in range(parameter.ndim):
        size = parameter.shape[axis]
        if size not in (1, shape[axis]):
            if size != -(-shape[axis] // group):
                raise ValueError(f"{size} groups of {group} do not cover axis {axis} of {shape}")
            parameter = np.repeat(parameter, group, axis=axis)
            parameter = parameter.take(range(shape[axis]), axis=axis)
    return parameter
