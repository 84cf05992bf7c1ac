"""Tensors whose numbers are made whenever they are read, and not kept: a rewritten weight takes no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir


def lazy(
    read: Callable[[], np.ndarray], dtype: ir.DataType, shape: Iterable[int], name: str | None
) -> ir.LazyTensor:
    """A tensor of the numbers that `read` gives.

    Args:
        read: makes an array of this dtype and shape.
    """
    return ir.LazyTensor(
        lambda: ir.Tensor(read(), dtype=dtype, name=name), dtype=dtype, shape=ir.Shape(shape), name=name
    )


def changed(
    tensor: ir.TensorProtocol, change: Callable[[np.ndarray], np.ndarray], dtype: ir.DataType | None = None
) -> ir.LazyTensor:
    """A tensor with every number changed.

    Args:
        change: of an array to one of the same shape, of `dtype` where that is given.
    """
    shape = tensor.shape.numpy()
    return lazy(lambda: change(tensor.numpy()), dtype or tensor.dtype, shape, tensor.name)


def rounded(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.LazyTensor:
    """A tensor rounded to another type, ties to even."""
    return changed(tensor, lambda array: array.astype(dtype.numpy()), dtype)
