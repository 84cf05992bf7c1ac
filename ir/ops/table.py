"""The vocabulary: every operator that a view may name, a row each, with what is known of it.

A dialect gives an operator a canonical name from here where it can, and its own ("aten.topk.default",
"ai.onnx::Celu") where it can't; some of those have rows as well. Columns say what is certain for every use of
the operator; None means that nothing is told, and whoever asks refuses or goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..values import GraphValue
from . import attention, elementwise, layout, lookups, made, pieces, products, reductions
from .coupled import Coupled
from .elementwise import binary, couple_elementwise, shape_broadcast, shape_same, unary
from .made import couple_frozen
from .reductions import couple_reduce, reduced, shape_reduce
from .symbolic import Attrs, Known, ShapeRule

DtypeRule = Callable[[Sequence[GraphValue | None], Attrs], str | None]
Compute = Callable[[Sequence[Any], Attrs, Known], Any]


@dataclass(frozen=True)
class Operator:
    """One row.

    shape: of a result, from the operands' shapes. dtype: of a result, its name or a rule.
    couple: which axes of operands and result are the same; without it none of them can change its size.
    compute: the result, from arrays; for scalars, masks and activations rather than for running a model.
    """

    name: str
    shape: ShapeRule | None
    dtype: str | DtypeRule | None
    couple: Callable[[Coupled, GraphValue], None] | None
    compute: Compute | None


def _like(operands: Sequence[GraphValue | None], attrs: Attrs) -> str | None:
    first = next((value for value in operands if value is not None), None)
    return None if first is None else first.dtype


def _like_chosen(operands: Sequence[GraphValue | None], attrs: Attrs) -> str | None:
    return _like(operands[1:], attrs)


def _filled(operands: Sequence[GraphValue | None], attrs: Attrs) -> str:
    return {bool: "bool", int: "int64"}.get(type(attrs["value"]), "float32")


def _unary(dtype: str | DtypeRule, functions: Mapping[str, Callable[[Any], Any]]) -> Iterable[Operator]:
    for name, function in functions.items():
        yield Operator(name, shape_same, dtype, couple_elementwise, unary(function))


def _binary(dtype: str | DtypeRule, functions: Mapping[str, Callable[[Any, Any], Any]]) -> Iterable[Operator]:
    for name, function in functions.items():
        yield Operator(name, shape_broadcast, dtype, couple_elementwise, binary(function))


def _reductions(functions: Mapping[str, Compute | None]) -> Iterable[Operator]:
    for name, function in functions.items():
        yield Operator(name, shape_reduce, _like, couple_reduce, function)


def _rows(names: str, *columns: Any) -> Iterable[Operator]:
    """Operators of which the same is known."""
    return (Operator(name, *columns) for name in names.split())


ROWS: tuple[Operator, ...] = (
    Operator("input", None, None, made.couple_input, None),
    Operator("const", None, None, made.couple_free, None),
    Operator("full", None, _filled, made.couple_free, made.compute_full),
    Operator("range", made.shape_range, _like, made.couple_free, lambda o, a, known: np.arange(*o[:3])),
    Operator("dim", made.shape_dim, "int64", made.couple_free, made.compute_dim),
    Operator("shape", made.shape_shape, "int64", made.couple_sizes, made.compute_shape),
    Operator("aten.eye.default", None, None, made.couple_free, None),
    # Each element from those at its place.
    *_unary(_like, {
        "identity": lambda x: x, "dropout": lambda x: x, "neg": np.negative, "abs": np.abs, "exp": np.exp,
        "log": np.log, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "erf": elementwise.erf,
        "tanh": np.tanh, "reciprocal": lambda x: 1 / x, "sigmoid": elementwise.sigmoid,
        "relu": lambda x: np.maximum(x, 0), "silu": lambda x: x * elementwise.sigmoid(x),
        "softplus": lambda x: np.log1p(np.exp(x)), "sin": np.sin, "cos": np.cos, "floor": np.floor,
        "ceil": np.ceil, "round": np.round, "sign": np.sign,
    }),
    *_unary("bool", {"not": np.logical_not, "isnan": np.isnan}),
    *_binary(_like, {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": elementwise.divide, "pow": np.power,
        "maximum": np.maximum, "minimum": np.minimum, "mod": np.mod,
    }),
    *_binary("bool", {
        "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal, "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor,
    }),
    # What PyTorch computes with sizes.
    *_binary(_like, {"floordiv": np.floor_divide, "sym_max": np.maximum, "sym_min": np.minimum}),
    Operator("truediv", shape_broadcast, None, couple_elementwise, binary(np.true_divide)),
    Operator("sym_float", shape_same, None, couple_elementwise, unary(lambda x: np.asarray(x, np.float64))),
    Operator("sym_sum", shape_broadcast, _like, couple_elementwise, lambda o, a, known: sum(o)),
    Operator(
        "where", shape_broadcast, _like_chosen, couple_elementwise,
        lambda o, a, known: np.where(o[0].astype(bool), o[1], o[2]),
    ),
    Operator(
        "gelu", shape_same, _like, couple_elementwise,
        lambda o, a, known: elementwise.gelu(o[0], a["approximate"]),
    ),
    Operator("clip", shape_same, _like, couple_elementwise, elementwise.compute_clip),
    Operator("cast", shape_same, lambda o, a: a["to"], couple_elementwise, elementwise.compute_cast),
    Operator(
        "cumsum", shape_same, _like, couple_elementwise, lambda o, a, known: np.cumsum(o[0], axis=a["axis"])
    ),
    Operator(
        "tril", shape_same, _like, couple_elementwise,
        lambda o, a, known: np.tril(o[0], a.get("diagonal", 0)),
    ),
    Operator(
        "triu", shape_same, _like, couple_elementwise,
        lambda o, a, known: np.triu(o[0], a.get("diagonal", 0)),
    ),
    # GELUs of ONNX Runtime: (x) or (x, bias).
    *_rows(
        "com.microsoft::BiasGelu com.microsoft::Gelu", shape_same, _like, couple_elementwise,
        elementwise.biased_gelu("none"),
    ),
    *_rows(
        "com.microsoft::FastGelu", shape_same, _like, couple_elementwise, elementwise.biased_gelu("tanh")
    ),
    Operator(
        "com.microsoft::QuickGelu", shape_same, _like, couple_elementwise,
        lambda o, a, known: o[0] * elementwise.sigmoid(a.get("alpha", 1.702) * o[0]),
    ),
    Operator("fake_quantize", None, None, elementwise.couple_fake_quantize, None),
    *_rows("quantize_linear dequantize_linear", shape_same, None, None, None),
    *_rows("dynamic_quantize_linear matmul_integer", None, None, None, None),
    # Along an axis.
    *_reductions({
        "mean": reduced(np.mean), "sum": reduced(np.sum), "max": reduced(np.max), "min": reduced(np.min),
        "var": reductions.compute_var, "l2": None,
    }),
    Operator("argmax", reductions.shape_argmax, "int64", reductions.couple_argmax, None),
    Operator("softmax", shape_same, _like, reductions.couple_norm, reductions.compute_softmax),
    *_rows(
        "log_softmax layer_norm rms_norm com.microsoft::SkipLayerNormalization "
        "com.microsoft::SkipSimplifiedLayerNormalization",
        shape_same, _like, reductions.couple_norm, None,
    ),
    # Products.
    Operator(
        "matmul", products.shape_matmul, _like, products.couple_matmul, binary(np.matmul)
    ),
    Operator("aten.baddbmm.default", products.shape_baddbmm, _like, products.couple_baddbmm, None),
    Operator("linear", products.shape_linear, _like, products.couple_linear, None),
    Operator("einsum", products.shape_einsum, _like, products.couple_einsum, None),
    *_rows("conv1d conv2d", products.shape_conv, _like, products.couple_conv, None),
    Operator("sdpa", attention.shape_sdpa, _like, attention.couple_sdpa, None),
    Operator("ai.onnx::Attention", attention.shape_attention, _like, None, None),
    *_rows(
        "ai.onnx::RotaryEmbedding com.microsoft::RotaryEmbedding com.microsoft::MultiHeadAttention",
        shape_same, _like, None, None,
    ),
    # The same elements otherwise.
    Operator("reshape", layout.shape_given, _like, layout.couple_reshape, layout.compute_reshape),
    Operator(
        "transpose", layout.shape_transpose, _like, layout.couple_transpose,
        lambda o, a, known: np.transpose(o[0], a["perm"]),
    ),
    Operator("unsqueeze", layout.shape_unsqueeze, _like, layout.couple_unsqueeze, layout.compute_unsqueeze),
    Operator(
        "squeeze", layout.shape_squeeze, _like, layout.couple_squeeze,
        lambda o, a, known: np.squeeze(o[0], tuple(a["axes"])),
    ),
    Operator("expand", layout.shape_given, _like, couple_elementwise, layout.compute_expand),
    Operator("pad", layout.shape_pad, _like, layout.couple_pad, None),
    Operator("tile", layout.shape_tile, _like, layout.couple_tile, None),
    Operator(
        "concat", pieces.shape_concat, _like, pieces.couple_concat,
        lambda o, a, known: np.concatenate(o, a["axis"]),
    ),
    Operator("stack", None, None, pieces.couple_stack, lambda o, a, known: np.stack(o, a["axis"])),
    Operator("slice", pieces.shape_slice, _like, pieces.couple_slice, pieces.compute_slice),
    Operator("split", pieces.shape_split, _like, pieces.couple_split, None),
    Operator(
        "select", pieces.shape_select, _like, pieces.couple_select,
        lambda o, a, known: np.take(o[0], a["index"], axis=a["axis"]),
    ),
    # By position.
    Operator(
        "embedding", lookups.shape_gather, _like, lookups.couple_gather, lambda o, a, known: o[0][o[1]]
    ),
    Operator(
        "gather", lookups.shape_gather, _like, lookups.couple_gather,
        lambda o, a, known: np.take(o[0], o[1], axis=a["axis"]),
    ),
    Operator("index", None, None, lookups.couple_index, lookups.compute_index),
    Operator(
        "gather_elements", lookups.shape_gather_elements, _like, couple_frozen,
        lambda o, a, known: np.take_along_axis(o[0], o[1], axis=a["axis"]),
    ),
    Operator(
        "ai.onnx::GatherND", None, None, couple_frozen,
        lambda o, a, known: o[0][tuple(np.moveaxis(o[1], -1, 0))],
    ),
    # What sorts tokens by their experts, and what multiplies them there.
    *_rows(
        "ai.onnx::ScatterND aten.topk.default aten.sort.default aten.sort.stable aten.histc.default "
        "aten.empty_like.default "
        "aten.index_put.default aten.floor_divide.default aten._grouped_mm.default "
        "transformers.grouped_mm_fallback.default graphwright.grouped_mm.default "
        "aten.scatter.src",
        None, None, couple_frozen, None,
    ),
)  # fmt: skip
OPERATORS: Mapping[str, Operator] = {row.name: row for row in ROWS}
