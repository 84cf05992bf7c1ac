"""Rules that make linear layers of convolutions, and carry channels last through what follows.

A convolution reads windows of neighbours: side by side in a row, they enter a product with a constant
matrix, for which the library has kernels. Its result has channels last, and a permutation gives it back the
order that the graph expects; element-wise operators go before that permutation, until it meets another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import op

from .layouts import axes
from .rewriter import Rewriter, Rule, array, shape

_LAST = (0, 2, 1)  # (batch, channels, length) <-> (batch, length, channels)


def _convolution(this: Rewriter, call: Any) -> Any:
    """Of one axis: any windows, or groups without neighbours. Of two: windows that tile an image."""
    weight = array(call.args[1])
    attrs = call.attrs
    if weight is None or any(int(size) != 1 for size in attrs.dilation):
        return None
    stride, padding = ([int(size) for size in given] for given in (attrs.strides, attrs.padding))
    if weight.ndim == 3 and int(attrs.groups) > 1:
        plain = weight.shape[2] == 1 and stride == [1] and not any(padding)
        return _grouped(this, call, weight, int(attrs.groups)) if plain else None
    if weight.ndim == 3:
        return _windows(this, call, weight, stride[0], padding)
    tiles = weight.shape[2:] == tuple(stride) and not any(padding) and int(attrs.groups) == 1
    return _patches(this, call, weight) if tiles else None


def _windows(this: Rewriter, call: Any, weight: np.ndarray, stride: int, padding: list[int]) -> Any:
    out, channels, size = weight.shape
    rows = this.emit(op.permute_dims(call.args[0], _LAST))
    if any(padding):
        rows = this.emit(op.nn.pad(rows, [0, 0, *padding, 0, 0]))
    end = stride * (shape(call)[2] - 1) + 1
    if size > 1 or stride > 1:
        cuts = [this.emit(op.strided_slice(rows, [1], [k], [k + end], [stride])) for k in range(size)]
        rows = this.emit(op.concat(cuts, axis=-1)) if size > 1 else cuts[0]
    matrix = weight.transpose(2, 1, 0).reshape(size * channels, out)
    return op.permute_dims(this.emit(op.matmul(rows, _const(matrix))), _LAST)


def _grouped(this: Rewriter, call: Any, weight: np.ndarray, groups: int) -> Any:
    """Every group of channels has a matrix of its own."""
    batch, channels, length = shape(call.args[0])
    rows = this.emit(op.permute_dims(call.args[0], _LAST))
    apart = this.emit(op.reshape(rows, (batch, length, groups, channels // groups)))
    heads = this.emit(op.permute_dims(apart, [0, 2, 1, 3]))
    matrices = weight[:, :, 0].reshape(groups, -1, channels // groups).transpose(0, 2, 1)
    y = this.emit(op.permute_dims(this.emit(op.matmul(heads, _const(matrices))), [0, 2, 1, 3]))
    return op.permute_dims(this.emit(op.reshape(y, (batch, length, weight.shape[0]))), _LAST)


def _patches(this: Rewriter, call: Any, weight: np.ndarray) -> Any:
    x = call.args[0]
    (batch, channels, *_), (_, out, down, across) = shape(x), shape(call)
    height, width = weight.shape[2:]
    if shape(x)[2:] != (down * height, across * width):
        x = this.emit(op.strided_slice(x, [2, 3], [0, 0], [down * height, across * width]))
    apart = this.emit(op.reshape(x, (batch, channels, down, height, across, width)))
    turned = this.emit(op.permute_dims(apart, [0, 2, 4, 1, 3, 5]))
    rows = this.emit(op.reshape(turned, (batch, down * across, channels * height * width)))
    y = this.emit(op.matmul(rows, _const(weight.reshape(out, -1).T)))
    return op.reshape(this.emit(op.permute_dims(y, _LAST)), (batch, out, down, across))


def _const(matrix: np.ndarray) -> Any:
    return relax.const(np.ascontiguousarray(matrix), str(matrix.dtype))


def _channels_last(this: Rewriter, call: Any) -> Any:
    """An element-wise operator on values whose channels were all made the second axis, or on constants."""
    found = []
    for operand in call.args:
        turned, held = this.source(operand, "permute_dims"), array(operand)
        if turned is not None and axes(turned) == _LAST:
            found.append(turned.args[0])
        elif held is not None and held.ndim <= 3:
            wide = held.reshape((1,) * (3 - held.ndim) + held.shape)
            found.append(operand if held.ndim == 0 else _const(wide.transpose(_LAST)))
        else:
            return _bias(this, call)
    if all(array(operand) is not None for operand in found):
        return None
    return op.permute_dims(this.emit(relax.Call(call.op, found, call.attrs, call.ty_args)), _LAST)


def _bias(this: Rewriter, call: Any) -> Any:
    """One number a channel, added after an image has got its two axes back."""
    image = this.source(call.args[0], "reshape")
    held = array(call.args[-1])
    if (
        image is None
        or held is None
        or held.shape[-2:] != (1, 1)
        or this.source(image.args[0], "permute_dims") is None
    ):
        return None
    batch, channels, down, across = (*shape(call), 0)[:4]
    if len(shape(call)) != 4 or shape(image.args[0]) != (batch, channels, down * across):
        return None
    flat = relax.Call(call.op, [image.args[0], _const(held.reshape(-1, 1))], call.attrs, call.ty_args)
    return op.reshape(this.emit(flat), shape(call))


_ELEMENTWISE = "add subtract multiply divide nn.gelu nn.gelu_tanh nn.relu nn.silu sigmoid tanh".split()
RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _channels_last),
    "nn.conv1d": _convolution,
    "nn.conv2d": _convolution,
}
