"""Compiles one kernel of the library and calls it, for the tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TVM_NUM_THREADS", "2")  # read when tvm starts its threads

import numpy as np
import tvm
from graphwright.backends.target import detect
from graphwright.backends.tvm.machine import bfloat16
from graphwright.backends.tvm.machine.llvm_target import llvm_target


def compiled(function: Any) -> Any:
    module = tvm.IRModule({"main": function})
    return bfloat16.compiled(module, target=llvm_target(detect(), 2))["main"]


def call(
    function: Any, arguments: Sequence[np.ndarray], results: Sequence[tuple[Any, Any]]
) -> list[np.ndarray]:
    """The outputs of a compiled kernel, whose buffers begin as 77, so that what is not written shows."""
    outs = [np.full(shape, 77, dtype) for shape, dtype in results]
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in (*arguments, *outs)]
    function(*tensors)
    return [tensor.numpy() for tensor in tensors[len(arguments) :]]


def wide(array: np.ndarray, size: int) -> np.ndarray:
    """Zeros behind a vector, up to a size."""
    return np.concatenate([array, np.zeros(size - len(array), array.dtype)])
