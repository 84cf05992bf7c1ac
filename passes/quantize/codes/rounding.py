"""A weight matrix in n-bit integers, and the plainest way there: round to nearest.

Every method of quantize-weights ends in a `Coded`: integers 0 to 2^n - 1 with a scale and a zero per group
of inputs. Scales and fractional zeros are rounded to float16 before they are used, so that what is stored is
what was optimised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ....ir.errors import WeightError
from .affine import Affine, extremes, fit, integers, spread

_HALF = np.finfo(np.float16)
_ROWS = 512  # of a weight, evenly spread, tell how well zeros fit it


@dataclass(frozen=True)
class Scheme:
    """How a weight is stored: bits of a code, inputs to a group, and whether zeros may be fractions.

    Fractions cost float16 a group, `bits` otherwise, and follow a group's range more closely.
    """

    bits: int
    group: int
    fractions: bool = False

    def of_rows(self, columns: int) -> Scheme:
        """The same, with the group of this size, half of it and so on down to 16, by which rows of so many
        columns take least: a group that a row does not fill is stored in full."""
        sizes = [self.group >> step for step in range(self.group.bit_length()) if self.group >> step >= 16]
        beside = 16 + (16 if self.fractions else self.bits)  # scale and zero
        best = min(
            sizes, key=lambda group: -(-columns // group) * (group * self.bits + beside), default=self.group
        )
        return replace(self, group=best)


@dataclass(frozen=True)
class Coded:
    """w is about scale (code - zero).

    codes: uint8 (out, in). scale: float32 (out, groups), exact in float16 where `half` says so. zero: (out,
    groups), integers of `bits` bits, or float32 exact in float16 where the method found fractions.
    group: inputs to a group; the last one may be short.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    bits: int
    group: int

    @classmethod
    def of(cls, weight: np.ndarray, affine: Affine, scheme: Scheme) -> Coded:
        """A weight on a grid."""
        codes = affine.quantize(weight).astype(np.uint8, copy=False)
        return cls(codes, affine.scale, affine.zero, scheme.bits, scheme.group)

    def floats(self) -> np.ndarray:
        """The weight that the packed graph computes with, float32 (out, in)."""
        steps = self.codes.astype(np.float32)
        steps -= spread(self.zero, self.codes.shape, self.group).astype(np.float32)
        steps *= spread(self.scale, self.codes.shape, self.group)
        return steps


def round_to_nearest(weight: np.ndarray, scheme: Scheme) -> Coded:
    """Each group's range onto 2^bits integers, each weight to the nearest.

    Args:
        weight: float32 (out, in).
    """
    return Coded.of(weight, grid(weight, scheme), scheme)


def with_zeros(scheme: Scheme, weights: Sequence[np.ndarray]) -> Scheme:
    """The scheme with fractional zeros where they lower the error of rounding by more than the bits that they
    take would as codes: a bit more to a code halves the steps. What was rounded once already (as GGUF's Q4_1)
    lies on a grid that whole zeros miss.

    Args:
        weights: float32 (out, in) each.
    """
    whole, fractions = replace(scheme, fractions=False), replace(scheme, fractions=True)
    parts = [weight[:: -(-len(weight) // _ROWS)] for weight in weights]
    least = sum(_squares(part, fractions) for part in parts)
    more_bits = (16 - scheme.bits) / scheme.group
    return fractions if least * 4**more_bits < sum(_squares(part, whole) for part in parts) else whole


def _squares(weight: np.ndarray, scheme: Scheme) -> float:
    return float(np.square(weight - grid(weight, scheme).simulate(weight), dtype=np.float64).sum())


def grid(weight: np.ndarray, scheme: Scheme, shrink: np.ndarray | float = 1.0) -> Affine:
    """The mapping of each group's range, times shrink (a factor, or one per group), onto 2^bits integers."""
    least, most = extremes(weight, axis=0, group=scheme.group)
    low, high = integers(scheme.bits)
    affine = fit(least * shrink, most * shrink, low, high, group=scheme.group)
    scale = halved(affine.scale)
    # The zero follows from the scale that is stored, not from the one before rounding.
    zero = np.clip(-np.minimum(least * shrink, 0) / scale, low, high)
    zero = zero.astype(np.float16).astype(np.float32) if scheme.fractions else np.rint(zero).astype(np.int32)
    return Affine(scale, zero, low, high, scheme.group)


def halved(scale: np.ndarray) -> np.ndarray:
    """Scales as float16 holds them, in float32; untouched where one is outside its normal numbers."""
    return scale.astype(np.float16).astype(np.float32) if fits_half(scale, float(_HALF.tiny)) else scale


def fits_half(values: np.ndarray, smallest: float = 0.0) -> bool:
    """Whether float16 holds numbers to 11 bits: none is too large, none nearer to zero than `smallest`."""
    sizes = np.abs(values)
    return bool(sizes.size == 0 or (sizes.max() <= _HALF.max and sizes.min() >= smallest))


def checked(weight: np.ndarray, name: str) -> np.ndarray:
    """The weight, if a scale can be taken from it.

    Raises:
        WeightError: it has NaN or infinity.
    """
    if not np.isfinite(weight).all():
        raise WeightError(
            f"the weight '{name}' has NaN or infinite values and cannot be quantized: restore it from a "
            "sound checkpoint"
        )
    return weight
