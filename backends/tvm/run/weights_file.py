"""model.weights: the bytes of every tensor, one behind the other, each at a multiple of 64. NumPy only.

Several variants of a build may share one: each reads the tensors that it lists.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

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
    with WeightsFile(path) as file:
        return tuple(file.add(name, array) for name, array in arrays.items())


class WeightsFile:
    """A file of tensors, written one at a time; equal content is stored once. Use it in a `with`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._known: dict[bytes, int] = {}

    def add(self, name: str, array: np.ndarray) -> Place:
        """Raises BackendError as `write`."""
        if array.dtype.isbuiltin != 1:
            raise BackendError(f"the weight {name} is {array.dtype.name}, which the tvm backend can't store")
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        offset = _aligned(self._file.tell())
        place = self._known.setdefault(hashlib.blake2b(content, digest_size=16).digest(), offset)
        if place == offset:
            self._file.seek(offset)
            self._file.write(content)
        return Place(name, array.dtype.name, array.shape, place)

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.truncate(max(_aligned(self._file.tell()), ALIGN))  # an empty file can't be mapped
        self._file.close()


def read(path: Path, places: Sequence[Place]) -> dict[str, np.ndarray]:
    """Arrays by name, at the distances that they have in the file: what lies between them is not read.

    Memory is asked for in large pages: with small ones, of a mapped file, MiniLM takes 2 to 5% longer.

    Raises:
        BundleError: the file can't be read, or a tensor does not lie in it.
    """
    arrays = {}
    try:
        with path.open("rb") as file:
            if not (size := os.fstat(file.fileno()).st_size):
                raise ValueError("it is empty")
            room = _room(size)
            for place in places:
                arrays[place.name] = _tensor(path, file, room, place)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} can't be read ({error}): copy or build the bundle again") from error
    return arrays


def _tensor(path: Path, file: BinaryIO, room: np.ndarray, place: Place) -> np.ndarray:
    try:
        dtype, count = np.dtype(place.dtype), int(np.prod(place.shape, dtype=object))
        if place.offset % ALIGN or dtype.hasobject or min(place.shape, default=1) < 0:
            raise ValueError("it is none that was written")
        flat = np.frombuffer(room, dtype, count, place.offset)
        left = flat.view(np.uint8).data
        file.seek(place.offset)
        while left and (more := file.readinto(left)):  # type: ignore[attr-defined]
            left = left[more:]
        if left:
            raise ValueError("the file is shorter than it was")
        return flat.reshape(place.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise BundleError(
            f"{path} does not hold the weight {place.name} ({error}): copy or build the bundle again"
        ) from error


def _room(size: int) -> np.ndarray:
    """Bytes for a file, beginning where a large page does."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        room = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        room.madvise(mmap.MADV_HUGEPAGE)
    else:
        room = mmap.mmap(-1, size + _PAGE)
    raw = np.frombuffer(room, np.uint8)
    start = -raw.__array_interface__["data"][0] % _PAGE
    return raw[start : start + size]


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN
