"""ONNX operators under canonical names: a table, and a small function for each that needs one.

A rule takes a `Call` and gives (operator, operands, attributes), or None when this use of the operator has
no canonical spelling. Attributes that moved to inputs over the opsets (axes, sizes, bounds) are read from
either place. Source: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ..ops.symbolic import Shape, concatenated
from ..values import END, Dim, GraphValue

Spec = tuple[str, Sequence[GraphValue | None], dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """One node with its operands.

    operands: inputs, absent ones None. sizes: what is known of small integer inputs (shape_arithmetic.py).
    opset: version of the default domain. outputs: the results' shapes, as far as the graph says.
    """

    node: ir.Node
    operands: Sequence[GraphValue | None]
    sizes: Sequence[tuple[Dim, ...] | None]
    opset: int
    outputs: Sequence[Shape | None]

    def attr(self, name: str, default: Any = None) -> Any:
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def operand(self, position: int) -> GraphValue | None:
        return self.operands[position] if position < len(self.operands) else None

    def ints(self, position: int, attribute: str | None = None) -> tuple[int | None, ...] | None:
        """A static list of integers from an input, or from the attribute it was in earlier opsets; None for
        an element that depends on the call's data."""
        if attribute is not None and attribute in self.node.attributes:
            value = self.attr(attribute)
            return (value,) if isinstance(value, int) else tuple(value)
        found = self.sizes[position] if position < len(self.sizes) else None
        return None if found is None else tuple(d if isinstance(d, int) else None for d in found)

    def axis(self, axis: int, position: int = 0, extra: int = 0) -> int:
        """A non-negative axis of an operand, where its rank is known."""
        operand = self.operand(position)
        if axis >= 0 or operand is None or operand.shape is None:
            return axis
        return axis + len(operand.shape) + extra

    def absent(self, position: int) -> bool:
        return self.operand(position) is None


Rule = Callable[[Call], Spec | None]


def canonical(call: Call) -> Spec:
    """The canonical operator, operands and attributes of a call; the dialect's own name at worst."""
    domain, op_type = call.node.domain, call.node.op_type
    rule = RULES.get(op_type) if domain in ("", "ai.onnx") else None
    spec = rule(call) if rule else None
    if spec is not None:
        return spec
    attrs = {name: _plain(attribute) for name, attribute in call.node.attributes.items()}
    return f"{domain or 'ai.onnx'}::{op_type}", call.operands, attrs


def _plain(attribute: ir.Attr) -> Any:
    value = attribute.value
    if isinstance(value, list | tuple):
        return tuple(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return attribute.type.name.lower()


def dtype_name(dtype: ir.DataType | None) -> str | None:
    """The name NumPy uses ("float32", "bfloat16"), "string" for strings."""
    if dtype is None or dtype == ir.DataType.UNDEFINED:
        return None
    return "string" if dtype == ir.DataType.STRING else dtype.numpy().name


def _same(name: str, count: int = 1) -> Rule:
    """An operator whose first `count` inputs are its operands, and which has no attributes."""
    return lambda call: (name, call.operands[:count], {})


def _named(name: str) -> Rule:
    """An operator whose attributes keep the names that ONNX gives them."""
    return lambda call: (name, call.operands, {k: _plain(v) for k, v in call.node.attributes.items()})


def _variadic(name: str) -> Rule:
    return lambda call: (name, call.operands, {}) if len(call.operands) > 1 else None


def _gemm(call: Call) -> Spec | None:
    if (call.attr("alpha", 1.0), call.attr("beta", 1.0), call.attr("transA", 0)) != (1.0, 1.0, 0):
        return None
    return "linear", call.operands, {"transposed": bool(call.attr("transB", 0))}


def _softmax(name: str) -> Rule:
    def rule(call: Call) -> Spec | None:
        axis = call.axis(call.attr("axis", -1 if call.opset >= 13 else 1))
        shape = call.operands[0].shape if call.operands[0] else None
        # Before opset 13 every axis from `axis` on was normalised together.
        if call.opset < 13 and (shape is None or axis != len(shape) - 1) and axis != -1:
            return None
        return name, call.operands, {"axis": axis}

    return rule


def _layer_norm(call: Call) -> Spec:
    attrs = {"epsilon": call.attr("epsilon", 1e-5), "axis": call.axis(call.attr("axis", -1))}
    return "layer_norm", call.operands, attrs


def _rms_norm(call: Call) -> Spec | None:
    shape = call.operands[0].shape if call.operands[0] else None
    axis = call.axis(call.attr("axis", -1))
    if axis != -1 and (shape is None or axis != len(shape) - 1):
        return None
    return "rms_norm", call.operands, {"epsilon": call.attr("epsilon", 1e-5)}


def _reduce(name: str) -> Rule:
    def rule(call: Call) -> Spec | None:
        axes = call.ints(1, "axes")
        shape = call.operands[0].shape if call.operands[0] else None
        if axes is None and not call.absent(1):
            return None
        if not axes:
            if call.attr("noop_with_empty_axes", 0):
                return "identity", call.operands[:1], {}
            if shape is None:
                return None
            axes = tuple(range(len(shape)))
        known = tuple(call.axis(a) for a in axes if a is not None)
        return name, call.operands[:1], {"axes": known, "keepdim": bool(call.attr("keepdims", 1))}

    return rule


def _shaped(name: str) -> Rule:
    """Reshape, Expand: the target is given as the result has it, with 0 and -1 resolved where possible."""

    def rule(call: Call) -> Spec | None:
        shape = call.outputs[0]
        return None if shape is None else (name, call.operands[:1], {"shape": _static(shape)})

    return rule


def _static(shape: Shape) -> tuple[int | None, ...]:
    return tuple(d if isinstance(d, int) else None for d in shape)


def _transpose(call: Call) -> Spec | None:
    perm = call.attr("perm")
    if perm is None:
        shape = call.operands[0].shape if call.operands[0] else None
        if shape is None:
            return None
        perm = range(len(shape))[::-1]
    return "transpose", call.operands, {"perm": tuple(perm)}


def _unsqueeze(call: Call) -> Spec | None:
    axes = call.ints(1, "axes")
    if axes is None:
        return None
    attrs = {"axes": tuple(sorted(call.axis(a, extra=len(axes)) for a in axes if a is not None))}
    return "unsqueeze", call.operands[:1], attrs


def _squeeze(call: Call) -> Spec | None:
    axes = call.ints(1, "axes")
    operand = call.operands[0]
    if operand is not None and operand.op == "shape" and operand.attrs["end"] == operand.attrs["start"] + 1:
        return "dim", operand.inputs, {"axis": operand.attrs["start"]}
    if axes is None:
        if not call.absent(1) or operand is None or operand.shape is None:
            return None
        axes = tuple(i for i, d in enumerate(operand.shape) if d == 1)
    return "squeeze", call.operands[:1], {"axes": tuple(call.axis(a) for a in axes if a is not None)}


def _shape(call: Call) -> Spec:
    operand = call.operands[0]
    rank = len(operand.shape) if operand and operand.shape is not None else END
    start, end, _ = slice(call.attr("start", 0), call.attr("end"), 1).indices(rank)
    return "shape", call.operands, {"start": start, "end": end}


def _slice(call: Call) -> Spec | None:
    """A slice of one axis; of several axes only one may cut anything."""
    if call.opset < 10 and "starts" in call.node.attributes:
        starts, ends, axes = call.ints(1, "starts"), call.ints(2, "ends"), call.ints(3, "axes")
    else:
        starts, ends, axes = call.ints(1), call.ints(2), call.ints(3)
    count = len(starts or ends or axes or (0,))
    starts, ends = starts or (None,) * count, ends or (None,) * count
    if axes is None:
        axes = tuple(range(count))
    steps = call.ints(4) or (1,) * count
    shape = call.operands[0].shape if call.operands[0] else None
    cuts = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis is None:
            return None
        axis = call.axis(axis)
        size = shape[axis] if shape is not None else None
        attrs = {"axis": axis, "start": bound(start, size), "end": bound(end, size), "step": step}
        if (attrs["start"], attrs["step"]) != (0, 1) or attrs["end"] not in (END, size):
            cuts.append(attrs)
    if len(cuts) > 1 or not axes:
        return None
    attrs = cuts[0] if cuts else attrs
    return _part_of_shape(call.operands[0], attrs) or ("slice", call.operands[:1], attrs)


def _part_of_shape(source: GraphValue | None, cut: Mapping[str, Any]) -> Spec | None:
    """Some of the sizes of a shape, which may be known where the others are not."""
    start, end = cut["start"], cut["end"]
    if source is None or source.op != "shape" or cut["step"] != 1 or start is None or end is None:
        return None
    if min(start, end) < 0:
        return None
    first, last = source.attrs["start"], source.attrs["end"]
    return "shape", source.inputs, {"start": min(first + start, last), "end": min(first + end, last)}


def bound(value: int | None, size: Dim) -> int | None:
    """A slice's bound: inside the axis where its size is known, END for "to the end" where it isn't."""
    if value is None:
        return None
    if not isinstance(size, int):
        return END if value >= 2**31 - 1 else value
    return max(0, min(value + size if value < 0 else value, size))


def _split(call: Call) -> Spec | None:
    axis = call.axis(call.attr("axis", 0))
    sizes = call.ints(1, "split")
    if sizes is None:
        shape = call.operands[0].shape if call.operands[0] else None
        size = shape[axis] if shape is not None else None
        pieces = call.attr("num_outputs", len(call.node.outputs))
        if not isinstance(size, int):
            return None
        each = -(-size // pieces)
        sizes = tuple(max(0, min(each, size - i * each)) for i in range(pieces))
    return "split", call.operands[:1], {"axis": axis, "sizes": sizes}


def _concat(call: Call) -> Spec:
    shapes = [x.shape if x is not None else None for x in call.operands]
    return concatenated(call.operands, shapes, call.axis(call.attr("axis", 0)))


def _gather(call: Call) -> Spec:
    """A size, one index of an axis, rows of a table, or indexing of an axis by a tensor."""
    data, index = call.operands[:2]
    axis = call.axis(call.attr("axis", 0))
    sizes = call.ints(1)
    position = sizes[0] if sizes and index is not None and index.shape == () else None
    if data is None or position is None:
        table = data is not None and data.op == "const" and "float" in (data.dtype or "")
        return (
            ("embedding", [data, index], {})
            if table and axis == 0
            else ("gather", [data, index], {"axis": axis})
        )
    if data.op != "shape":
        return "select", [data], {"axis": axis, "index": position}
    start, end = data.attrs["start"], data.attrs["end"]
    return "dim", data.inputs, {"axis": (end if position < 0 else start) + position}


def _cast(call: Call) -> Spec:
    to = dtype_name(ir.DataType(call.attr("to")))
    same = call.operands[0] is not None and call.operands[0].dtype == to
    return ("identity", call.operands[:1], {}) if same else ("cast", call.operands[:1], {"to": to})


def _dropout(call: Call) -> Spec | None:
    training = call.sizes[2] if len(call.sizes) > 2 else None
    if call.absent(2):
        return "dropout", call.operands[:1], {"p": call.attr("ratio", 0.5), "training": False}
    return None if training is None else ("dropout", call.operands[:2], {"training": bool(training[0])})


def _clip(call: Call) -> Spec | None:
    return None if {"min", "max"} & call.node.attributes.keys() else ("clip", call.operands, {})


def _full(call: Call) -> Spec | None:
    if call.outputs[0] is None:
        return None
    tensor = call.attr("value")
    value = 0.0 if tensor is None else tensor.numpy().reshape(-1)[0].item()
    return "full", [], {"shape": _static(call.outputs[0]), "value": value}


def _trilu(call: Call) -> Spec | None:
    diagonal = (0,) if call.absent(1) else call.ints(1)
    if diagonal is None or diagonal[0] is None:
        return None
    return "triu" if call.attr("upper", 1) else "tril", call.operands[:1], {"diagonal": diagonal[0]}


def _pad(call: Call) -> Spec | None:
    pads, axes = call.ints(1, "pads"), call.ints(3)
    shape = call.operands[0].shape if call.operands[0] else None
    fill = call.operand(2)
    value = call.attr("value", 0.0) if fill is None else fill.const
    if pads is None or shape is None or value is None or call.attr("mode", "constant") != "constant":
        return None
    ranks = range(len(shape)) if axes is None else [call.axis(a) for a in axes if a is not None]
    places = dict(zip(ranks, zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True), strict=True))
    known = tuple(places.get(axis, (0, 0)) for axis in range(len(shape)))
    return "pad", call.operands[:1], {"pads": known, "value": getattr(value, "item", lambda: value)()}


def _tile(call: Call) -> Spec | None:
    repeats = call.ints(1)
    return None if repeats is None else ("tile", call.operands[:1], {"repeats": repeats})


def _argmax(call: Call) -> Spec | None:
    if call.attr("select_last_index", 0):
        return None
    attrs = {"axis": call.axis(call.attr("axis", 0)), "keepdim": bool(call.attr("keepdims", 1))}
    return "argmax", call.operands, attrs


def _cumsum(call: Call) -> Spec | None:
    axis = call.ints(1)
    if axis is None or axis[0] is None or call.attr("exclusive", 0) or call.attr("reverse", 0):
        return None
    return "cumsum", call.operands[:1], {"axis": call.axis(axis[0])}


def _conv(call: Call) -> Spec | None:
    shape = call.operands[1].shape if call.operands[1] else None
    if shape is None or len(shape) not in (3, 4) or call.attr("auto_pad", "NOTSET") != "NOTSET":
        return None
    rank = len(shape) - 2
    pads = tuple(call.attr("pads", (0,) * 2 * rank))
    if pads[:rank] != pads[rank:]:
        return None
    attrs = {
        "stride": tuple(call.attr("strides", (1,) * rank)),
        "padding": pads[:rank],
        "dilation": tuple(call.attr("dilations", (1,) * rank)),
        "groups": call.attr("group", 1),
    }
    return f"conv{rank}d", call.operands, attrs


def _attention(call: Call) -> Spec | None:
    """Attention of opset 23 on (batch, heads, length, head_dim), without a cache."""
    query, key = call.operands[0], call.operand(1)
    if query is None or key is None or query.shape is None or len(query.shape) != 4:
        return None
    if (
        call.attr("qk_matmul_output_mode", 0) != 0
        or len(call.node.outputs) > 1
        or any(not call.absent(i) for i in range(4, 7))
    ):
        return None
    gqa = key.shape is not None and key.shape[1] != query.shape[1]
    attrs = {"causal": bool(call.attr("is_causal", 0)), "scale": call.attr("scale"), "gqa": gqa}
    if call.attr("softcap", 0.0):
        attrs["softcap"] = call.attr("softcap")
    return "sdpa", call.operands[:4], {**attrs, "dropout": 0.0}


def _einsum(call: Call) -> Spec:
    return "einsum", call.operands, {"equation": call.attr("equation").replace(" ", "")}


RULES: dict[str, Rule] = {
    **{name: _same(name.lower()) for name in "Abs Ceil Cos Erf Exp Floor IsNaN Log Neg Relu".split()},
    **{name: _same(name.lower()) for name in "Round Sigmoid Sign Sin Softplus Sqrt Tanh Not".split()},
    "Reciprocal": _same("reciprocal"),
    "Identity": _same("identity"),
    **{name: _same(name.lower(), 2) for name in "Add Sub Mul Div Pow And Or Xor MatMul".split()},
    **{
        name: _same(canonical, 2)
        for name, canonical in {
            "Equal": "eq", "Less": "lt", "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge"
        }.items()
    },
    **{f"Reduce{name}": _reduce(name.lower()) for name in ("Mean", "Sum", "Max", "Min", "L2")},
    "Sum": lambda call: ("add", call.operands, {}) if len(call.operands) == 2 else None,
    "Max": _variadic("maximum"),
    "Min": _variadic("minimum"),
    "Swish": lambda call: ("silu", call.operands, {}) if call.attr("alpha", 1.0) == 1.0 else None,
    "Gelu": lambda call: ("gelu", call.operands, {"approximate": call.attr("approximate", "none")}),
    "Where": _same("where", 3),
    "Range": _same("range", 3),
    "Gemm": _gemm,
    "Softmax": _softmax("softmax"),
    "LogSoftmax": _softmax("log_softmax"),
    "LayerNormalization": _layer_norm,
    "SimplifiedLayerNormalization": _rms_norm,
    "RMSNormalization": _rms_norm,
    "Reshape": _shaped("reshape"),
    "Flatten": _shaped("reshape"),
    "Expand": _shaped("expand"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": lambda call: (
        "gather_elements", call.operands, {"axis": call.axis(call.attr("axis", 0))}
    ),
    "Cast": _cast,
    "Dropout": _dropout,
    "Clip": _clip,
    "ConstantOfShape": _full,
    "Pad": _pad,
    "Tile": _tile,
    "ArgMax": _argmax,
    "Trilu": _trilu,
    "CumSum": _cumsum,
    "Conv": _conv,
    "Attention": _attention,
    "Einsum": _einsum,
    "QuantizeLinear": _named("quantize_linear"),
    "DequantizeLinear": _named("dequantize_linear"),
    "DynamicQuantizeLinear": _named("dynamic_quantize_linear"),
    "MatMulInteger": _named("matmul_integer"),
}  # fmt: skip
