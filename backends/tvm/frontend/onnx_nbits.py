"""ONNX Runtime's kernels for packed weights in Relax: codes of a byte each, decoded in the graph.

uint8 codes multiply floats. int8 codes say that the other side of the product may be rounded to 8 bits, too:
accuracy_level 4 of MatMulNBits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from .node import Node
from .rewriter import array, shape


def matmul_nbits(node: Node) -> Any:
    """com.microsoft MatMulNBits: x W^T + bias, W (N, K) in groups of codes with a scale and a zero each."""
    x, packed, scale, zero, order, bias = node.operands(6)
    if order is not None:
        raise node.unfit("an order of inputs")
    rows, columns, bits, group = (int(node.attrs[name]) for name in ("N", "K", "bits", "block_size"))
    codes = _unpacked(_known(node, packed), bits)[:, :, :group]
    groups = codes.shape[1]
    scales, zeros = _parameters(node, scale, zero, bits, rows, groups)
    if int(node.attrs.get("accuracy_level", 0)) == 4:
        shift = 128 if bits == 8 else 0
        codes, zeros = (codes - np.uint8(shift)).view(np.int8), zeros - zeros.dtype.type(shift)
    weight = _decoded(node, relax.const(codes), relax.const(zeros), relax.const(scales))
    weight = node.emit(relax.op.reshape(weight, (rows, groups * group)))
    if groups * group > columns:
        weight = node.emit(relax.op.strided_slice(weight, [1], [0], [columns]))
    turned = node.emit(relax.op.permute_dims(weight, [1, 0]))
    return node.sum([node.emit(relax.op.matmul(x, turned)), bias])


def gather_block_quantized(node: Node) -> Any:
    """com.microsoft GatherBlockQuantized: rows of a packed table of two axes, groups along the second."""
    packed, ids, scale, zero = node.operands(4)
    bits, group = (int(node.attrs.get(name, default)) for name, default in (("bits", 4), ("block_size", 128)))
    data = _known(node, packed)
    if node.attrs.get("gather_axis", 0) or node.attrs.get("quantize_axis", 1) != 1 or data.dtype != np.uint8:
        raise node.unfit("other axes than the rows of a table of bytes")
    codes = _unpacked(data, bits)
    rows, columns = codes.shape
    groups = shape(scale)[1]
    scales, zeros = _parameters(node, scale, zero, bits, rows, groups)
    spare = groups * group - columns
    table = relax.const(np.pad(codes, ((0, 0), (0, spare))).reshape(rows, groups, group))
    parts = (table, relax.const(zeros), relax.const(scales))
    taken = [node.emit(relax.op.take(part, ids, axis=0)) for part in parts]
    found = _decoded(node, *taken)
    found = node.emit(relax.op.reshape(found, (*shape(ids), groups * group)))
    return relax.op.strided_slice(found, [len(shape(ids))], [0], [columns]) if spare else found


def _decoded(node: Node, codes: Any, zeros: Any, scales: Any) -> Any:
    """(code - zero) scale"""
    floats = node.emit(relax.op.astype(codes, str(scales.ty.dtype)))
    return node.emit(relax.op.multiply(node.emit(relax.op.subtract(floats, zeros)), scales))


def _parameters(
    node: Node, scale: Any, zero: Any, bits: int, rows: int, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scales and zeros, (rows, groups, 1), of the scales' type."""
    scales = _known(node, scale).reshape(rows, groups, 1)
    if zero is None:
        zeros = np.full_like(scales, 2 ** (bits - 1))
    else:
        given = _known(node, zero)
        if given.dtype == np.uint8:
            given = _unpacked(given.reshape(rows, -1), bits)[:, :groups]
        zeros = given.astype(scales.dtype).reshape(rows, groups, 1)
    return scales, zeros


def _known(node: Node, value: Any) -> np.ndarray:
    found = array(value)
    if found is None:
        raise node.unfit("weights that are no constants")
    return found


def _unpacked(data: np.ndarray, bits: int) -> np.ndarray:
    """A byte a code along the last axis, low bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (data[..., None] >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(*data.shape[:-1], -1)
