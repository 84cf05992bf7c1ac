"""Weights of compiled functions: constants that became parameters, equal ones once."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

LEAST = 1024  # bytes; smaller constants stay in the module


class Weights:
    """arrays: every constant added so far, by name, in order of first use."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(self, constant: Any) -> str | None:
        """The name of a tvm constant's value; None for one that is too small to be worth a parameter."""
        array = constant.value.numpy()
        if array.nbytes < LEAST:
            return None
        digest = hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data, digest_size=16).digest()
        name = self._names.setdefault((array.dtype.name, array.shape, digest), f"w{len(self.arrays)}")
        self.arrays.setdefault(name, array)
        return name
