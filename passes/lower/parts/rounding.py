"""QuantizeLinear, Clip of codes and DequantizeLinear (ONNX, opset 20) as operators of an fx program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20
from torch import Tensor

op: Any = opset20


@torch.library.custom_op("graphwright::quantize_linear", mutates_args=())
def _quantize(x: Tensor, scale: Tensor, zero: Tensor, axis: int | None = None) -> Tensor:
    """Codes of zero's type, uint8 or int8. scale, zero: (), or (channels,) of an axis."""
    ends = torch.iinfo(zero.dtype)
    codes = torch.round(x / _along(scale, x, axis)) + _along(zero, x, axis)
    return codes.clamp(ends.min, ends.max).to(zero.dtype)


@_quantize.register_fake
def _(x: Tensor, scale: Tensor, zero: Tensor, axis: int | None = None) -> Tensor:
    return torch.empty_like(x, dtype=zero.dtype)


@torch.library.custom_op("graphwright::clip_codes", mutates_args=())
def _clip(codes: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """low, high: (), of the codes' type."""
    return codes.clamp(low, high)


@_clip.register_fake
def _(codes: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.empty_like(codes)


@torch.library.custom_op("graphwright::dequantize_linear", mutates_args=())
def _dequantize(codes: Tensor, scale: Tensor, zero: Tensor, axis: int | None = None) -> Tensor:
    """What codes stand for, of scale's type."""
    return (codes.to(scale.dtype) - _along(zero, codes, axis)) * _along(scale, codes, axis)


@_dequantize.register_fake
def _(codes: Tensor, scale: Tensor, zero: Tensor, axis: int | None = None) -> Tensor:
    return torch.empty_like(codes, dtype=scale.dtype)


QUANTIZE = torch.ops.graphwright.quantize_linear.default
CLIP = torch.ops.graphwright.clip_codes.default
DEQUANTIZE = torch.ops.graphwright.dequantize_linear.default


def translations() -> dict[Any, Callable[..., Any]]:
    """As torch.onnx.export takes them."""

    def quantize(x: Any, scale: Any, zero: Any, axis: int | None = None) -> Any:
        return op.QuantizeLinear(x, scale, zero, **_axis(axis))

    def clip(codes: Any, low: Any, high: Any) -> Any:
        return op.Clip(codes, low, high)

    def dequantize(codes: Any, scale: Any, zero: Any, axis: int | None = None) -> Any:
        return op.DequantizeLinear(codes, scale, zero, **_axis(axis))

    return {QUANTIZE: quantize, CLIP: clip, DEQUANTIZE: dequantize}


def _axis(axis: int | None) -> dict[str, int]:
    return {} if axis is None else {"axis": axis}


def _along(given: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Of each channel, so that it goes with x."""
    if axis is None:
        return given
    shape = [1] * x.dim()
    shape[axis] = -1
    return given.reshape(shape)
