"""Puts a call's arrays into those of a compiled size, and takes its results out. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ....ir.spec import MASKS, InputSpec
from ...bundles.record import Padding

_LARGE = 1 << 16  # bytes, from which on an array that fits as it is isn't copied


class Input:
    """An input of one compiled size.

    array: what the function reads, of that size, at a multiple of 64 bytes; kept from call to call.
    """

    def __init__(self, spec: InputSpec, sizes: Mapping[str, int], padding: Padding) -> None:
        self.batch = [axis for axis, dim in enumerate(spec.shape) if dim is not None and dim == padding.batch]
        self.value = spec.hidden if spec.role in (*MASKS, "mask") else spec.low
        if spec.role in ("token_ids", "decoder_token_ids"):
            self.value = max(padding.token, spec.low)
        self.array = aligned([dim if isinstance(dim, int) else sizes[dim] for dim in spec.shape], spec.dtype)

    def fill(self, given: np.ndarray) -> None:
        """Copies an array that is no larger along any axis; the rest becomes masked tokens, and rows like the
        first one: rows of zeros would be averages over nothing."""
        if given.shape == self.array.shape:
            self.array[...] = given
            return
        self.array.fill(self.value)
        self.array[tuple(map(slice, given.shape))] = given
        for axis in self.batch:
            rows = np.moveaxis(self.array, axis, 0)
            rows[given.shape[axis] :] = rows[:1]

    def takes(self, given: np.ndarray) -> bool:
        """Whether the function can read the given array itself, and a copy would cost something."""
        return (
            given.nbytes >= _LARGE
            and given.shape == self.array.shape
            and given.flags.c_contiguous
            and given.flags.writeable  # others can't be handed over without a copy
            and given.__array_interface__["data"][0] % 64 == 0
        )


def aligned(shape: Sequence[int], dtype: str) -> np.ndarray:
    """An array of zeros at a multiple of 64 bytes, where TVM's functions expect tensors to begin."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.__array_interface__["data"][0] % 64
    return raw[start : start + size].view(kind).reshape(shape)


def cut(array: np.ndarray, axes: Sequence[str | None], sizes: Mapping[str, int]) -> np.ndarray:
    """The part of an output that belongs to the call: a copy where that is not all of it.

    Args:
        axes: the symbol that each axis has the size of, None for a constant.
        sizes: of every symbol of the call.
    """
    shape = tuple(
        sizes.get(symbol, size) if symbol else size for symbol, size in zip(axes, array.shape, strict=True)
    )
    return array if shape == array.shape else array[tuple(map(slice, shape))].copy()


def rows_of(array: np.ndarray, shape: Sequence[int | str], batch: str, start: int, rows: int) -> np.ndarray:
    """Some rows of an input, along each axis that its shape calls `batch`."""
    return array[tuple(slice(start, start + rows) if dim == batch else slice(None) for dim in shape)]
