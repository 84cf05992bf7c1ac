"""Tensors in a narrower float type."""

from __future__ import annotations

import onnx_ir as ir


def narrowed(tensor: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.LazyTensor:
    """A tensor rounded to another type, ties to even, when its numbers are read."""

    def read() -> ir.Tensor:
        return ir.Tensor(tensor.numpy().astype(dtype.numpy()), dtype=dtype, name=name)

    return ir.LazyTensor(read, dtype=dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)
