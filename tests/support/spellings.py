"""One Transformer layer in very many spellings, for properties that hold of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from onnx import TensorProto, helper, numpy_helper

TYPES = {
    "float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64, "int32": TensorProto.INT32, "bool": TensorProto.BOOL,
}  # fmt: skip
Dim = int | str


@dataclass(frozen=True)
class Layer:
    """What is chosen of a layer.

    heads, kv: of queries, of keys and values. layout: where heads are while scores are computed: on an axis
    of their own, on the batch's, or on none (one head). scale: what is scaled. mask_shape, mask_dtype,
    masking: None for no mask; how it gets into the scores. lead: sizes of the leading axes are "batch" and
    "length", or numbers. norm: of the residual sum. turned: rotary positions, batched: cosines vary by row,
    late: after heads were repeated. repeat: how heads of keys and values serve several of the queries.
    """

    heads: int = 2
    kv: int = 2
    size: int = 4
    value_size: int = 4
    layout: str = "heads"
    scale: str = "scores"
    biases: tuple[bool, bool, bool] = (True, True, True)
    bias_rank: int = 1
    mask_shape: str | None = None
    mask_dtype: str = "int64"
    masking: str = "large"
    causal: str = ""
    guarded: bool = False
    turned: str = ""
    batched: bool = False
    repeat: str = "expand"
    late: bool = False
    norm: str = "layer_norm"
    affine: tuple[bool, bool] = (True, True)
    act: str = "erf"
    batch: Dim = "batch"
    length: Dim = "length"
    dtype: str = "float32"
    embedded: str = ""
    opset: int = 20

    @property
    def width(self) -> int:
        return self.heads * self.size


MASK_SHAPES = ("b11l", "b1ll", "11ll", "ll", "bl", "b1l", "bhll", "1hll", "hll", "111l", "11l1", "1l")


class Writer:
    """Nodes by operator: `w.MatMul(a, b)`."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.nodes, self.weights = layer, [], []
        self.rng = np.random.default_rng(3)
        self.inputs: list[tuple[str, str, tuple[Dim, ...]]] = []

    def __getattr__(self, op: str) -> Any:
        def write(*inputs: str, results: int = 1, domain: str = "", **attrs: Any) -> Any:
            number = len(self.nodes)
            names = [f"{op.lower()}_{number}" + (f"_{i}" if i else "") for i in range(results)]
            self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attrs))
            return names if results > 1 else names[0]

        return write

    def const(self, data: Any, dtype: Any = None) -> str:
        array = np.asarray(
            data, dtype or (np.int64 if np.asarray(data).dtype.kind == "i" else self.layer.dtype)
        )
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def random(self, *shape: int) -> str:
        return self.const(self.rng.standard_normal(shape) * 0.5)

    def input(self, name: str, dtype: str, shape: tuple[Dim, ...]) -> str:
        self.inputs.append((name, dtype, shape))
        return name

    def linear(self, x: str, into: int, out: int, bias: bool = True) -> str:
        y = self.MatMul(x, self.random(into, out))
        if not bias:
            return y
        return self.Add(y, self.random(*[1] * (self.layer.bias_rank - 1), out))

    def cast(self, x: str, dtype: str) -> str:
        return self.Cast(x, to=TYPES[dtype])


def layer_program(layer: Layer) -> Program:
    """The layer as a program: (batch, length, width) in and out, or ids in."""
    w = Writer(layer)
    x = _entry(w)
    context = _attention(w, x)
    total = w.Add(w.linear(context, layer.heads * layer.value_size, layer.width), x)
    h = _norm(w, total)
    up = w.linear(h, layer.width, 12)
    down = w.linear(_gelu(w, up), 12, layer.width)
    y = _norm(w, w.Add(h, down))
    w.nodes.append(helper.make_node("Identity", [y], ["y"]))
    shape = [layer.batch, layer.length, layer.width]
    graph = helper.make_graph(
        w.nodes, "layer",
        [helper.make_tensor_value_info(name, TYPES[dtype], sizes) for name, dtype, sizes in w.inputs],
        [helper.make_tensor_value_info("y", TYPES[layer.dtype], shape)], w.weights,
    )  # fmt: skip
    imports = [helper.make_opsetid("", layer.opset), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    roles = {"ids": "token_ids", "mask": "attention_mask"}
    specs = tuple(
        InputSpec(
            n,
            d,
            s,
            roles.get(n, "other") if n == "ids" or len(s) == 2 else "other",
            9 if n == "ids" else None,
        )
        for n, d, s in w.inputs
    )
    symbols = {d: (1, 64) for spec in specs for d in spec.shape if isinstance(d, str)}
    return Program(onnx_ir.from_proto(proto), "onnx", specs, ("y",), symbols=symbols)


def feeds(
    program: Program, sizes: Sequence[tuple[int, int]] = ((1, 1), (2, 5), (3, 4))
) -> list[dict[str, np.ndarray]]:
    """Random inputs at some sizes; masks hide at most half of the keys and never the first."""
    made = []
    for number, (batch, length) in enumerate(sizes):
        rng = np.random.default_rng(number)
        feed = {}
        for spec in program.inputs:
            shape = tuple({"batch": batch, "length": length}.get(d, d) for d in spec.shape)
            if spec.name == "ids":
                feed[spec.name] = rng.integers(0, 9, shape).astype(spec.dtype)
            elif spec.name == "mask":
                kept = rng.random(shape) < 0.6
                kept[..., 0] = True
                if spec.shape[-1:] == (1,):
                    kept[:] = True
                feed[spec.name] = kept.astype(spec.dtype)
            elif spec.name == "bias":
                feed[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
            else:
                feed[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        made.append(feed)
    return made


def _entry(w: Writer) -> str:
    layer = w.layer
    tokens = (layer.batch, layer.length)
    if not layer.embedded:
        return w.input("x", layer.dtype, (*tokens, layer.width))
    ids = w.input("ids", "int64", tokens)
    words = w.Gather(w.random(9, layer.width), ids)
    n = w.Shape(ids, start=1, end=2)
    if layer.embedded == "slice":
        positions = w.Slice(w.const([list(range(64))]), w.const([0]), n, w.const([1]))
    else:
        positions = w.Range(w.const(0), w.Squeeze(n), w.const(1))
    placed = w.Gather(w.random(64, layer.width), positions)
    return _norm(w, w.Add(words, placed))


def _attention(w: Writer, x: str) -> str:
    layer = w.layer
    q = w.linear(x, layer.width, layer.width, layer.biases[0])
    k = w.linear(x, layer.width, layer.kv * layer.size, layer.biases[1])
    v = w.linear(x, layer.width, layer.kv * layer.value_size, layer.biases[2])
    if layer.layout != "none":
        q, k, v = (
            _split(w, each, heads, size)
            for each, heads, size in (
                (q, layer.heads, layer.size), (k, layer.kv, layer.size), (v, layer.kv, layer.value_size)
            )
        )  # fmt: skip
    cos, sin = _angles(w) if layer.turned else ("", "")
    if layer.turned and not layer.late:
        q, k = _turn(w, q, cos, sin), _turn(w, k, cos, sin)
    if layer.layout != "none" and layer.kv < layer.heads:
        k, v = _repeat(w, k, layer.size), _repeat(w, v, layer.value_size)
    if layer.turned and layer.late:
        q, k = _turn(w, q, cos, sin), _turn(w, k, cos, sin)
    number = layer.size**-0.5
    if layer.scale in ("query", "both"):
        q = w.Mul(q, w.const([number**0.5 if layer.scale == "both" else number]))
    if layer.scale == "both":
        k = w.Mul(k, w.const(number**0.5))
    if layer.layout == "batch":
        q, k = _folded(w, q, layer.size), _folded(w, k, layer.size)
        v = _folded(w, v, layer.value_size)
    flat = layer.layout != "heads"
    scores = w.MatMul(q, w.Transpose(k, perm=[0, 2, 1] if flat else [0, 1, 3, 2]))
    if layer.scale == "scores":
        scores = w.Div(scores, w.const(layer.size**0.5))
    if layer.causal:
        scores = _causal(w, scores, x)
    if layer.mask_shape:
        scores = _masked(w, scores)
    p = w.Softmax(scores, axis=-1)
    if layer.guarded:
        p = w.Where(w.IsNaN(p), w.const(0.0), p)
    c = w.MatMul(p, v)
    if layer.layout == "none":
        return c
    if layer.layout == "batch":
        rows = w.Shape(c, start=1, end=2)
        c = w.Reshape(c, w.Concat(w.const([-1, layer.heads]), rows, w.const([layer.value_size]), axis=0))
    c = w.Transpose(c, perm=[0, 2, 1, 3])
    return w.Reshape(c, w.const([0, 0, layer.heads * layer.value_size]))


def _split(w: Writer, x: str, heads: int, size: int) -> str:
    return w.Transpose(w.Reshape(x, w.const([0, 0, heads, size])), perm=[0, 2, 1, 3])


def _folded(w: Writer, x: str, size: int) -> str:
    """(batch, heads, length, size) with batch and heads on one axis; the length stays what it is."""
    length = w.Shape(x, start=2, end=3)
    return w.Reshape(x, w.Concat(w.const([-1]), length, w.const([size]), axis=0))


def _repeat(w: Writer, x: str, size: int) -> str:
    layer = w.layer
    groups = layer.heads // layer.kv
    if layer.repeat == "broadcast" and layer.kv == 1 and layer.layout == "heads":
        return x
    if layer.repeat == "gather":
        return w.Gather(x, w.const(np.arange(layer.heads) // groups), axis=1)
    if layer.repeat == "tile" and layer.kv == 1:
        return w.Tile(x, w.const([1, groups, 1, 1]))
    wide = w.Unsqueeze(x, w.const([2]))
    b, n = w.Shape(x, start=0, end=1), w.Shape(x, start=2, end=3)
    many = w.Concat(b, w.const([layer.kv, groups]), n, w.const([size]), axis=0)
    return w.Reshape(w.Expand(wide, many), w.Concat(b, w.const([layer.heads]), n, w.const([size]), axis=0))


def _angles(w: Writer) -> tuple[str, str]:
    """Cosines and sines (1 or batch, 1, length, size), halves alike."""
    layer = w.layer
    half = layer.size // 2
    table = np.outer(np.arange(64), 10.0 ** -np.arange(half))
    both = np.concatenate([table, table], -1) if layer.turned == "halves" else np.repeat(table, 2, -1)
    if layer.batched:
        places = w.input("places", "int64", (layer.batch, layer.length))
        clipped = w.Clip(w.Abs(places), w.const(0), w.const(63))
        found = [w.Unsqueeze(w.Gather(w.const(f(both)), clipped), w.const([1])) for f in (np.cos, np.sin)]
    else:
        n = w.Shape(w.inputs[0][0], start=1, end=2)
        cut = lambda data: w.Slice(w.const(data), w.const([0]), n, w.const([0]))
        found = [w.Unsqueeze(cut(f(both)), w.const([0, 1])) for f in (np.cos, np.sin)]
    return found[0], found[1]


def _turn(w: Writer, x: str, cos: str, sin: str) -> str:
    layer = w.layer
    half = layer.size // 2
    cut = lambda start, stop, step=1: w.Slice(
        x, w.const([start]), w.const([stop]), w.const([3]), w.const([step])
    )
    if layer.turned == "halves":
        other = w.Concat(w.Neg(cut(half, 2**31)), cut(0, half), axis=-1)
    else:
        first, second = cut(0, 2**31, 2), cut(1, 2**31, 2)
        pair = w.Concat(w.Unsqueeze(w.Neg(second), w.const([4])), w.Unsqueeze(first, w.const([4])), axis=-1)
        other = w.Reshape(pair, w.Shape(x))
    return w.Add(w.Mul(x, cos), w.Mul(other, sin))


def _causal(w: Writer, scores: str, x: str) -> str:
    layer = w.layer
    n = w.Shape(w.inputs[0][0], start=1, end=2)
    axes = w.const([0, 1])
    square = w.Concat(n, n, axis=0)
    corner = w.const([0, 0])
    if layer.causal == "slice":
        later = w.const(np.triu(np.full((64, 64), -np.inf if layer.masking == "infinite" else -1e9), 1))
        return w.Add(scores, w.Slice(later, corner, square, axes))
    earlier = w.Slice(w.const(np.tril(np.ones((64, 64), bool)), bool), corner, square, axes)
    return w.Where(earlier, scores, w.const(_low(layer)))


def _low(layer: Layer) -> float:
    if layer.masking == "infinite":
        return -np.inf
    if layer.masking == "smallest":
        return float(np.finfo(layer.dtype).min)
    return -1e4


def _masked(w: Writer, scores: str) -> str:
    layer = w.layer
    sizes = {"b": layer.batch, "l": layer.length, "h": layer.heads, "1": 1}
    shape = tuple(sizes[letter] for letter in layer.mask_shape or "")
    if layer.masking == "added":
        bias = w.input("bias", layer.dtype, shape)
        return w.Add(scores, _under(w, bias))
    mask = w.input("mask", layer.mask_dtype, shape)
    mask = _under(w, mask)
    if layer.masking == "large" or layer.mask_dtype == "float16":
        wide = w.cast(mask, layer.dtype)
        return w.Add(scores, w.Mul(w.Sub(w.const(1.0), wide), w.const(-1e4)))
    if layer.masking == "double" or layer.mask_dtype == "float64":
        wide = w.cast(mask, "float64")
        hidden = w.Mul(w.Sub(w.const(1.0, np.float64), wide), w.const(-1e4, np.float64))
        return w.Add(scores, w.cast(hidden, layer.dtype))
    kept = mask if layer.mask_dtype == "bool" else w.cast(mask, "bool")
    if layer.masking == "over":
        return w.Where(w.Not(kept), w.const(_low(layer)), scores)
    return w.Add(scores, w.Where(kept, w.const(0.0), w.const(_low(layer))))


def _under(w: Writer, mask: str) -> str:
    """A mask (batch, length) under scores of four axes."""
    axes = {"heads": [1, 2], "none": [1], "batch": [1]}[w.layer.layout]
    return w.Unsqueeze(mask, w.const(axes)) if w.layer.mask_shape == "bl" else mask


def _norm(w: Writer, x: str) -> str:
    layer = w.layer
    scale = w.random(layer.width) if layer.affine[0] else None
    shift = w.random(layer.width) if layer.affine[1] else None
    if layer.norm == "operator":
        scale = scale or w.const(np.ones(layer.width))
        return w.LayerNormalization(x, scale, *([shift] if shift else []), axis=-1, epsilon=1e-5)
    if layer.norm == "layer_norm":
        x = w.Sub(x, w.ReduceMean(x, w.const([-1])))
    square = w.Pow(x, w.const(2.0)) if layer.norm == "layer_norm" else w.Mul(x, x)
    root = w.Sqrt(w.Add(w.ReduceMean(square, w.const([-1])), w.const(1e-5)))
    y = w.Div(x, root) if layer.norm == "layer_norm" else w.Mul(x, w.Reciprocal(root))
    y = w.Mul(y, scale) if scale else y
    return w.Add(y, shift) if shift else y


def _gelu(w: Writer, x: str) -> str:
    if w.layer.act == "erf":
        inner = w.Erf(w.Div(x, w.const(2.0**0.5)))
        return w.Mul(w.Mul(x, w.Add(inner, w.const(1.0))), w.const(0.5))
    if w.layer.act == "operator":
        return w.Gelu(x)
    cube = w.Mul(w.Pow(x, w.const(3.0)), w.const(0.044715))
    inner = w.Tanh(w.Mul(w.Add(x, cube), w.const((2 / np.pi) ** 0.5)))
    return w.Mul(w.Mul(x, w.const(0.5)), w.Add(inner, w.const(1.0)))
