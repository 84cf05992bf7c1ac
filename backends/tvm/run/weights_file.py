"""model.weights: the bytes of every tensor, one behind the other, each at a multiple of 64. NumPy only."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ....ir.errors import BackendError, BundleError
from ...bundles.record import Place

ALIGN = 64  # bytes; what compiled functions read vectors at
_PAGE = 1 << 21  # bytes of a large page


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[Place, ...]:
    """Writes arrays one at a time; the same arrays give the same bytes.

    Raises:
        BackendError: a dtype that NumPy has no name of its own for, such as bfloat16.
    """
    places = []
    with path.open("wb") as file:
        for name, array in arrays.items():
            if array.dtype.isbuiltin != 1:
                raise BackendError(
                    f"the weight {name} is {array.dtype.name}, which the tvm backend can't store"
                )
            offset = _aligned(file.tell())
            file.seek(offset)
            file.write(np.ascontiguousarray(array).data)
            places.append(Place(name, array.dtype.name, array.shape, offset))
        file.truncate(max(_aligned(file.tell()), ALIGN))  # an empty file can't be mapped
    return tuple(places)


def read(path: Path, places: Sequence[Place]) -> dict[str, np.ndarray]:
    """Arrays by name, side by side in memory.

    It is asked for in large pages: with small ones, of a mapped file, MiniLM takes 2 to 5% longer.

    Raises:
        BundleError: the file can't be read, or a tensor does not lie in it.
    """
    try:
        content = _content(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} can't be read ({error}): copy or build the bundle again") from error
    arrays = {}
    for place in places:
        try:
            dtype, count = np.dtype(place.dtype), int(np.prod(place.shape, dtype=object))
            if place.offset % ALIGN or dtype.hasobject or min(place.shape, default=1) < 0:
                raise ValueError("it is none that was written")
            flat = np.frombuffer(content, dtype, count, place.offset)
            arrays[place.name] = flat.reshape(place.shape)
        except (TypeError, ValueError, OverflowError) as error:
            raise BundleError(
                f"{path} does not hold the weight {place.name} ({error}): copy or build the bundle again"
            ) from error
    return arrays


def _content(path: Path) -> np.ndarray:
    """A file's bytes, beginning where a large page does."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(mmap, "MADV_HUGEPAGE"):
            room = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            room.madvise(mmap.MADV_HUGEPAGE)
        else:
            room = mmap.mmap(-1, size + _PAGE)
        raw = np.frombuffer(room, np.uint8)
        start = -raw.__array_interface__["data"][0] % _PAGE
        content = raw[start : start + size]
        read = 0
        while read < size and (more := file.readinto(content[read:].data)):
            read += more
    if read < max(size, 1):
        raise ValueError("it is shorter than it was")
    return content


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN
