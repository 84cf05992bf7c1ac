"""Runs a view in NumPy by the canonical vocabulary alone: what the adapters' translations are held to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from graphwright.ir.values import END, GraphValue, GraphView
from scipy import special

Arrays = Mapping[str, np.ndarray]


@np.errstate(divide="ignore", invalid="ignore")  # the dead branches of a where
def run(view: GraphView, feed: Arrays, symbols: Mapping[str, int]) -> dict[GraphValue, np.ndarray]:
    """Every value of a view, floats in double precision.

    Args:
        feed: arrays by input name. symbols: the size each symbol has in them.
    """
    found: dict[GraphValue, Any] = {}
    for value in view:
        if value.op == "input":
            array = np.asarray(feed[value.name])
        elif value.op == "const":
            array = value.const
        else:
            inputs = [None if v is None else found[v] for v in value.inputs]
            shape = [_size(d, symbols) for d in value.shape or ()]
            array = np.asarray(evaluate(value, inputs, shape))
        found[value] = array.astype(np.float64) if array.dtype.kind == "f" else array
    return found


def _size(dim: Any, symbols: Mapping[str, int]) -> int | None:
    return eval(dim, {}, dict(symbols)) if isinstance(dim, str) else dim


def evaluate(value: GraphValue, inputs: list[Any], shape: list[int | None]) -> Any:
    """One value from its operands' arrays. shape: the result's, as the view tells it."""
    a, x = value.attrs, inputs[0] if inputs else None
    match value.op:
        case "linear":
            return x @ (inputs[1].T if a["transposed"] else inputs[1]) + (inputs[2] if len(inputs) > 2 else 0)
        case "where":
            return np.where(*inputs)
        case "cast":
            return x.astype(np.float64 if "float" in a["to"] else a["to"])
        case "softmax":
            return special.softmax(x, axis=a["axis"])
        case "gelu" if a["approximate"] == "none":
            return x * special.ndtr(x)
        case "gelu":
            return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        case "layer_norm":
            axes = tuple(range(a["axis"], x.ndim))
            x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + a["epsilon"])
            return _affine(x, inputs)
        case "rms_norm":
            return _affine(x / np.sqrt((x**2).mean(-1, keepdims=True) + a["epsilon"]), inputs)
        case "sdpa":
            return _sdpa(a, *inputs)
        case "reshape" | "expand" | "full":
            # The attribute and the shape must say the same; only the shape knows the symbols.
            assert all(i is None or i == d for i, d in zip(a["shape"], shape, strict=True)), value
            if value.op == "full":
                return np.full(shape, a["value"], value.dtype)
            if value.op == "expand":
                return np.broadcast_to(x, shape)
            return x.reshape([-1 if d is None else d for d in shape])
        case "transpose":
            return x.transpose(a["perm"])
        case "unsqueeze":
            return np.expand_dims(x, a["axes"])
        case "squeeze":
            return np.squeeze(x, a["axes"])
        case "mean" | "sum" | "max" | "min":
            return getattr(x, value.op)(axis=a["axes"], keepdims=a["keepdim"])
        case "argmax":
            return x.argmax(a["axis"], keepdims=a["keepdim"])
        case "concat":
            return np.concatenate(inputs, a["axis"])
        case "stack":
            return np.stack(inputs, a["axis"])
        case "split":
            return np.split(x, np.cumsum(a["sizes"])[:-1], a["axis"])[value.index]
        case "slice":
            end = a["end"] if a["end"] is not None else (a["start"] or 0) + (shape[a["axis"]] or 0)
            cut = slice(a["start"], None if end == END else end, a["step"])
            return x[(slice(None),) * a["axis"] + (cut,)]
        case "select":
            return x.take(a["index"], a["axis"])
        case "embedding":
            return x[inputs[1]]
        case "gather":
            return x.take(inputs[1], a["axis"])
        case "gather_elements":
            wide = np.broadcast_to(x, _wide(x, inputs[1], a["axis"]))
            return np.take_along_axis(wide, inputs[1], a["axis"])
        case "index":
            assert a["axes"] == tuple(range(len(a["axes"]))), value
            return x[tuple(inputs[1:])]
        case "ai.onnx::GatherND":
            return x[tuple(np.moveaxis(inputs[1], -1, 0))]
        case "dim":
            return np.int64(x.shape[a["axis"]])
        case "shape":
            return np.array(x.shape[a["start"] : a["end"]], np.int64)
        case "range":
            return np.arange(*inputs)
        case "cumsum":
            return x.cumsum(a["axis"])
        case "tril" | "triu":
            return getattr(np, value.op)(x, a["diagonal"])
        case "clip":
            return np.clip(x, *inputs[1:], *[None] * (3 - len(inputs)))
        case "pad":
            return np.pad(x, a["pads"], constant_values=a["value"])
        case "tile":
            sizes = (1,) * (len(shape) - x.ndim) + x.shape
            repeats = [d // size if d is not None else 1 for d, size in zip(shape, sizes, strict=True)]
            assert all(r in (None, k) for r, k in zip(a["repeats"], repeats, strict=True)), value
            return np.tile(x, repeats)
        case "einsum":
            return np.einsum(a["equation"], *inputs)
        case "identity" | "dropout":
            assert not a.get("training"), value
            return x
        case "conv1d" | "conv2d":
            return _conv(a, *inputs)
        case "div" if value.dtype == "int64":
            return np.trunc(inputs[0] / inputs[1]).astype(np.int64)
    return _FUNCTIONS[value.op](*inputs)


def _affine(x: np.ndarray, inputs: list[Any]) -> np.ndarray:
    weight, bias = (*inputs[1:], None, None)[:2]
    return x * (1 if weight is None else weight) + (0 if bias is None else bias)


def _sdpa(a: Mapping[str, Any], q: Any, k: Any, v: Any, mask: Any = None) -> np.ndarray:
    if a["gqa"]:
        k, v = (t.repeat(q.shape[1] // t.shape[1], axis=1) for t in (k, v))
    scores = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if a["scale"] is None else a["scale"])
    if a["causal"]:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    return np.nan_to_num(special.softmax(scores, -1)) @ v


def _wide(x: np.ndarray, index: np.ndarray, axis: int) -> list[int]:
    return [x.shape[i] if i == axis else index.shape[i] for i in range(x.ndim)]


def _conv(a: Mapping[str, Any], x: Any, weight: Any, bias: Any = None) -> np.ndarray:
    import torch

    tensors = [None if t is None else torch.from_numpy(np.ascontiguousarray(t)) for t in (x, weight, bias)]
    function = torch.conv1d if x.ndim == 3 else torch.conv2d
    return function(*tensors, a["stride"], a["padding"], a["dilation"], a["groups"]).numpy()


_FUNCTIONS: dict[str, Any] = {
    "matmul": np.matmul, "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "pow": np.power, "neg": np.negative, "abs": np.abs, "exp": np.exp, "log": np.log, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "reciprocal": lambda x: 1 / x, "erf": special.erf, "tanh": np.tanh,
    "sigmoid": special.expit, "relu": lambda x: np.maximum(x, 0), "silu": lambda x: x * special.expit(x),
    "sin": np.sin, "cos": np.cos, "sign": np.sign, "ceil": np.ceil, "floor": np.floor, "isnan": np.isnan,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
    "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip
