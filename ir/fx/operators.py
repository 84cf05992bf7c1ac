"""ATen operators under canonical names: a table, and a small function for each that needs one.

A rule takes the node and its bound arguments and gives (operator, operands, attributes), or None when
this use of the operator has no canonical spelling. Operands are nodes, Python scalars or None.
Source: the ATen schemas, https://docs.pytorch.org/docs/stable/torch.compiler_ir.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch.fx import Node

from ..ops.symbolic import concatenated
from ..ops.table import OPERATORS
from ..values import END

Spec = tuple[str, Sequence[Any], dict[str, Any]]
Rule = Callable[[Node, dict[str, Any]], Spec | None]

NOT_DATA = {
    "aten._assert_tensor_metadata",
    "aten._assert_scalar",
    "aten._assert_async",
    "aten.sym_constrain_range",
    "aten.sym_constrain_range_for_size",
}


def canonical(node: Node) -> Spec:
    """The canonical operator, operands and attributes of a call node; the dialect's own name at worst."""
    if node.op != "call_function":
        return f"{node.op}.{node.target}", list(_nodes((node.args, node.kwargs))), {}
    if not isinstance(node.target, torch._ops.OpOverload):
        name = getattr(node.target, "__name__", str(node.target))  # of a size: floordiv, sym_max
        own = name if name in OPERATORS else f"python.{name}"
        return own, list(_operands((node.args, node.kwargs))), {}
    arguments = bind(node)
    rule = RULES.get(packet(node))
    spec = rule(node, arguments) if rule else None
    return spec if spec is not None else _own(node, arguments)


def packet(node: Node) -> str:
    """The operator without its overload: "aten.add". An in-place operator that writes over a tensor nobody
    else sees goes by its functional name."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    name = str(node.target.overloadpacket)
    if name.endswith("_") and not name.endswith("__") and _owned(node.args[0]):
        return name[:-1]
    return name


def many(node: Node) -> bool:
    """Whether a call gives several results, to be picked by getitem."""
    if isinstance(node.target, torch._ops.OpOverload):
        returns = node.target._schema.returns
        return len(returns) > 1 or (len(returns) == 1 and isinstance(returns[0].type, torch.ListType))
    return node.op == "call_function" and isinstance(node.meta.get("val"), tuple | list)


def symbolic(node: Node) -> bool:
    """Whether a node computes a size or another Python number rather than a tensor."""
    return node.op == "call_function" and isinstance(
        node.meta.get("val"), bool | int | float | torch.SymInt | torch.SymFloat | torch.SymBool
    )


def bind(node: Node) -> dict[str, Any]:
    """A call's arguments by schema name, defaults included."""
    arguments = {}
    for i, (name, default) in enumerate(_signature(node.target)):
        if i < len(node.args):
            arguments[name] = node.args[i]
        else:
            arguments[name] = node.kwargs.get(name, default)
    return arguments


@cache
def _signature(target: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((a.name, a.default_value) for a in target._schema.arguments)


def _owned(node: Any) -> bool:
    """Whether a node is a fresh tensor with one user, so that writing over it shows nowhere else."""
    if not isinstance(node, Node) or node.op != "call_function" or len(node.users) != 1:
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    aliases = [result.alias_info for result in node.target._schema.returns if result.alias_info]
    return not aliases or (all(a.is_write for a in aliases) and _owned(node.args[0]))


def shape(node: Any) -> tuple[int | None, ...] | None:
    """The static shape of a node's result: None for a dynamic axis, or for all when nothing is known."""
    size = getattr(node.meta.get("val"), "shape", None) if isinstance(node, Node) else None
    return None if size is None else tuple(d if isinstance(d, int) else None for d in size)


def dtype(node: Any) -> str | None:
    """The dtype's name, "float32", or None when nothing is known."""
    kind = getattr(node.meta.get("val"), "dtype", None) if isinstance(node, Node) else None
    return None if kind is None else str(kind).removeprefix("torch.")


def _axis(axis: int, node: Node, extra: int = 0) -> int:
    size = shape(node)
    return axis + len(size) + extra if axis < 0 and size is not None else axis


def _axes(axes: Any, node: Node) -> tuple[int, ...]:
    if axes is None or axes == []:
        return tuple(range(len(shape(node) or ())))
    return tuple(_axis(a, node) for a in ([axes] if isinstance(axes, int) else axes))


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _nodes(arguments: Any) -> Iterator[Node]:
    return (a for a in _operands(arguments) if isinstance(a, Node))


def _operands(arguments: Any) -> Iterator[Any]:
    """Nodes and numbers in any nest of tuples, lists and dicts, in order."""
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, tuple | list):
        for argument in arguments:
            yield from _operands(argument)
    elif isinstance(arguments, Node | bool | int | float):
        yield arguments


def _own(node: Node, arguments: dict[str, Any]) -> Spec:
    """An operator without a canonical name: its tensors in order, everything else an attribute."""
    operands: list[Node] = []
    attrs: dict[str, Any] = {}
    for name, value in arguments.items():
        found = [n for n in _nodes(value) if not symbolic(n)]
        operands += found
        if not found and value is not None:
            attrs[name] = _plain(value)
    return str(node.target), operands, attrs


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_plain(v) for v in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return None if isinstance(value, Node) else str(value)


def _same(name: str, *operands: str) -> Rule:
    """An operator whose named arguments are its operands, and which has no attributes."""
    return lambda node, a: (name, [a[o] for o in operands], {})


def _arithmetic(name: str) -> Rule:
    def rule(node: Node, a: dict[str, Any]) -> Spec | None:
        if a.get("alpha", 1) != 1 or a.get("rounding_mode") is not None:
            return None
        return name, [a["self"], a.get("other", a.get("exponent"))], {}

    return rule


def _reduce(name: str) -> Rule:
    def rule(node: Node, a: dict[str, Any]) -> Spec | None:
        if many(node) or not isinstance(a["self"], Node):
            return None
        if "dim" not in a and "other" in a:
            return {"max": "maximum", "min": "minimum"}[name], [a["self"], a["other"]], {}
        return (
            name,
            [a["self"]],
            {"axes": _axes(a.get("dim"), a["self"]), "keepdim": bool(a.get("keepdim", False))},
        )

    return rule


def _var(node: Node, a: dict[str, Any]) -> Spec:
    """correction: what is taken off the count that the squares are divided by (1: unbiased)."""
    correction = a.get("correction", int(a.get("unbiased", True)))
    attrs = {"axes": _axes(a.get("dim"), a["self"]), "keepdim": bool(a.get("keepdim", False))}
    return "var", [a["self"]], {**attrs, "correction": 1 if correction is None else correction}


def _reshape(node: Node, a: dict[str, Any]) -> Spec | None:
    size = shape(node)
    return None if size is None else ("reshape", [a["self"]], {"shape": size})


def _permute(node: Node, a: dict[str, Any]) -> Spec | None:
    size = shape(a["self"])
    if size is None:
        return None
    perm = list(range(len(size)))
    if "dims" in a:
        perm = [_axis(d, a["self"]) for d in a["dims"]]
    elif packet(node) == "aten.numpy_T":
        perm.reverse()
    elif len(perm) > 1:
        first, second = a.get("dim0", a.get("axis0", -2)), a.get("dim1", a.get("axis1", -1))
        i, j = _axis(first, a["self"]), _axis(second, a["self"])
        perm[i], perm[j] = perm[j], perm[i]
    return "transpose", [a["self"]], {"perm": tuple(perm)}


def _expand(node: Node, a: dict[str, Any]) -> Spec | None:
    size = shape(node)
    return None if size is None else ("expand", [a["self"]], {"shape": size})


def _slice(node: Node, a: dict[str, Any]) -> Spec | None:
    axis = _axis(a["dim"], a["self"])
    size = (shape(a["self"]) or {axis: None})[axis]
    start, end = (0 if a["start"] is None else a["start"]), (END if a["end"] is None else a["end"])

    def bound(value: Any) -> int | None:
        if not isinstance(value, int):
            return None
        if size is None:
            return min(value, END)
        return max(0, min(value + size if value < 0 else value, size))

    attrs = {"axis": axis, "start": bound(start), "end": bound(end), "step": _int(a["step"])}
    return "slice", [a["self"]], attrs


def _split(node: Node, a: dict[str, Any]) -> Spec | None:
    pieces = node.meta.get("val")
    if pieces is None:
        return None
    axis = _axis(a["dim"], a["self"])
    return "split", [a["self"]], {"axis": axis, "sizes": tuple(_int(p.shape[axis]) for p in pieces)}


def _unbind(node: Node, a: dict[str, Any]) -> Spec:
    return "select", [a["self"]], {"axis": _axis(a["dim"], a["self"])}


def _select(node: Node, a: dict[str, Any]) -> Spec:
    return "select", [a["self"]], {"axis": _axis(a["dim"], a["self"]), "index": _int(a["index"])}


def _addmm(node: Node, a: dict[str, Any]) -> Spec | None:
    if (a["beta"], a["alpha"]) != (1, 1):
        return None
    return "linear", [a["mat1"], a["mat2"], a["self"]], {"transposed": False}


def _layer_norm(node: Node, a: dict[str, Any]) -> Spec:
    axis = _axis(-len(a["normalized_shape"]), a["input"])
    return "layer_norm", [a["input"], a["weight"], a["bias"]], {"epsilon": a["eps"], "axis": axis}


def _rms_norm(node: Node, a: dict[str, Any]) -> Spec | None:
    if len(a["normalized_shape"]) != 1:
        return None
    kind = getattr(torch, dtype(a["input"]) or "float32")
    return (
        "rms_norm",
        [a["input"], a["weight"]],
        {"epsilon": torch.finfo(kind).eps if a["eps"] is None else a["eps"]},
    )


def _softmax(name: str) -> Rule:
    def rule(node: Node, a: dict[str, Any]) -> Spec | None:
        if dtype(node) != dtype(a["self"]):
            return None
        return name, [a["self"]], {"axis": _axis(a["dim"], a["self"])}

    return rule


def _sdpa(node: Node, a: dict[str, Any]) -> Spec:
    attrs = {"causal": a["is_causal"], "scale": a["scale"], "gqa": a["enable_gqa"], "dropout": a["dropout_p"]}
    return "sdpa", [a["query"], a["key"], a["value"], a["attn_mask"]], attrs


def _cast(node: Node, a: dict[str, Any]) -> Spec | None:
    to = dtype(node)
    if to is None:
        return None
    return ("identity", [a["self"]], {}) if to == dtype(a["self"]) else ("cast", [a["self"]], {"to": to})


def _full(value: float | None) -> Rule:
    def rule(node: Node, a: dict[str, Any]) -> Spec | None:
        fill = a.get("fill_value") if value is None else value
        return None if isinstance(fill, Node) else ("full", [], {"shape": shape(node), "value": fill})

    return rule


def _unsqueeze(node: Node, a: dict[str, Any]) -> Spec:
    return "unsqueeze", [a["self"]], {"axes": (_axis(a["dim"], a["self"], extra=1),)}


def _squeeze(node: Node, a: dict[str, Any]) -> Spec | None:
    size = shape(a["self"])
    if size is None:
        return None
    axes = _axes(a["dim"], a["self"]) if "dim" in a else tuple(range(len(size)))
    return "squeeze", [a["self"]], {"axes": tuple(i for i in axes if size[i] == 1)}


def _along(name: str, *operands: str) -> Rule:
    """An operator with one axis."""
    return lambda node, a: (name, [a[o] for o in operands], {"axis": _axis(a["dim"], a[operands[0]])})


def _conv(node: Node, a: dict[str, Any]) -> Spec | None:
    size = shape(node)
    if size is None or a.get("transposed") or len(size) not in (3, 4) or a["padding"] == "same":
        return None
    if a["padding"] == "valid":
        a = {**a, "padding": (0,) * (len(size) - 2)}
    attrs = {k: tuple(a[k]) for k in ("stride", "padding", "dilation")} | {"groups": a["groups"]}
    return f"conv{len(size) - 2}d", [a["input"], a["weight"], a["bias"]], attrs


def _concat(node: Node, a: dict[str, Any]) -> Spec:
    tensors = a["tensors"]
    return concatenated(tensors, [shape(x) for x in tensors], _axis(a["dim"], tensors[0]))


def _pad(node: Node, a: dict[str, Any]) -> Spec | None:
    size = shape(a["self"])
    if size is None or a.get("mode", "constant") != "constant":
        return None
    last = [(_int(b), _int(e)) for b, e in zip(a["pad"][::2], a["pad"][1::2], strict=True)]
    pads = (*((0, 0),) * (len(size) - len(last)), *reversed(last))
    return "pad", [a["self"]], {"pads": pads, "value": a.get("value") or 0}


def _fake_quantize(node: Node, a: dict[str, Any]) -> Spec:
    attrs = {"low": a["quant_min"], "high": a["quant_max"], "axis": a.get("axis")}
    return "fake_quantize", [a["self"], a["scale"], a["zero_point"]], attrs


def _tile(node: Node, a: dict[str, Any]) -> Spec:
    return "tile", [a["self"]], {"repeats": tuple(_int(r) for r in a["repeats"])}


def _argmax(node: Node, a: dict[str, Any]) -> Spec | None:
    if a["dim"] is None:
        return None
    return "argmax", [a["self"]], {"axis": _axis(a["dim"], a["self"]), "keepdim": a["keepdim"]}


def _index(node: Node, a: dict[str, Any]) -> Spec:
    return (
        "index",
        [a["self"], *(i for i in a["indices"] if i is not None)],
        {"axes": tuple(axis for axis, i in enumerate(a["indices"]) if i is not None)},
    )


UNARY = (
    "abs ceil cos erf exp floor isnan log neg reciprocal relu round rsqrt sigmoid sign silu sin sqrt tanh"
).split()
RULES: dict[str, Rule] = {f"aten.{name}": _same(name, "self") for name in UNARY}
RULES |= {f"aten.{name}": _arithmetic(name) for name in "add sub mul div pow eq ne lt le gt ge".split()}
RULES |= {
    f"aten.{spelling}": _arithmetic(name)
    for name in ("and", "or", "xor")
    for spelling in (f"__{name}__", f"bitwise_{name}", f"logical_{name}")
}
RULES |= {f"aten.{name}": _full(value) for value, names in {
    0: "zeros zeros_like new_zeros", 1: "ones ones_like new_ones", None: "full full_like new_full",
}.items() for name in names.split()}  # fmt: skip
RULES |= {
    f"aten.{name}": rule
    for names, rule in {
        "bitwise_not logical_not": _same("not", "self"),
        "contiguous clone alias detach lift_fresh_copy": _same("identity", "self"),
        "matmul": _same("matmul", "self", "other"),
        "mm bmm": _same("matmul", "self", "mat2"),
        "addmm": _addmm,
        "linear": lambda node, a: ("linear", [a["input"], a["weight"], a["bias"]], {"transposed": True}),
        "rsub": lambda node, a: ("sub", [a["other"], a["self"]], {}) if a["alpha"] == 1 else None,
        "square": lambda node, a: ("pow", [a["self"], 2], {}),
        "maximum": _same("maximum", "self", "other"),
        "minimum": _same("minimum", "self", "other"),
        "clamp": _same("clip", "self", "min", "max"),
        "clamp_min": lambda node, a: ("clip", [a["self"], a["min"], None], {}),
        "clamp_max": lambda node, a: ("clip", [a["self"], None, a["max"]], {}),
        "mean": _reduce("mean"),
        "var": _var,
        "sum": _reduce("sum"),
        "linalg_vector_norm": lambda node, a: _reduce("l2")(node, a) if a["ord"] == 2 else None,
        "max amax": _reduce("max"),
        "min amin": _reduce("min"),
        "view reshape flatten unflatten _unsafe_view view_as reshape_as": _reshape,
        "permute transpose swapaxes t numpy_T mT": _permute,
        "expand expand_as broadcast_to": _expand,
        "unsqueeze": _unsqueeze,
        "squeeze": _squeeze,
        "slice": _slice,
        "select": _select,
        "split split_with_sizes chunk": _split,
        "unbind": _unbind,
        "cat concat": _concat,
        "stack": lambda node, a: ("stack", a["tensors"], {"axis": _axis(a["dim"], a["tensors"][0], 1)}),
        "embedding": _same("embedding", "weight", "indices"),
        "index_select": _along("gather", "self", "index"),
        "gather": _along("gather_elements", "self", "index"),
        "index": _index,
        "layer_norm native_layer_norm": _layer_norm,
        "rms_norm": _rms_norm,
        "softmax _softmax": _softmax("softmax"),
        "log_softmax _log_softmax": _softmax("log_softmax"),
        "gelu": lambda node, a: ("gelu", [a["self"]], {"approximate": a["approximate"]}),
        "softplus": lambda n, a: ("softplus", [a["self"]], {}) if a["beta"] == 1 else None,
        "scaled_dot_product_attention": _sdpa,
        "dropout": lambda node, a: ("dropout", [a["input"]], {"p": a["p"], "training": a["train"]}),
        "to _to_copy type_as": _cast,
        "where": lambda n, a: ("where", [a["condition"], a["self"], a["other"]], {}) if "self" in a else None,
        "masked_fill": lambda node, a: ("where", [a["mask"], a["value"], a["self"]], {}),
        "arange": lambda node, a: ("range", [a.get("start", 0), a["end"], a.get("step", 1)], {}),
        "pad constant_pad_nd": _pad,
        "repeat": _tile,
        "fake_quantize_per_tensor_affine fake_quantize_per_channel_affine": _fake_quantize,
        "_fake_quantize_learnable_per_tensor_affine": _fake_quantize,
        "_fake_quantize_learnable_per_channel_affine": _fake_quantize,
        "argmax": _argmax,
        "cumsum": _along("cumsum", "self"),
        "tril": lambda node, a: ("tril", [a["self"]], {"diagonal": a["diagonal"]}),
        "triu": lambda node, a: ("triu", [a["self"]], {"diagonal": a["diagonal"]}),
        "sym_size": lambda node, a: ("dim", [a["self"]], {"axis": _axis(a["dim"], a["self"])}),
        "conv1d conv2d convolution": _conv,
        "einsum": lambda node, a: ("einsum", a["tensors"], {"equation": a["equation"].replace(" ", "")}),
        "scalar_tensor": lambda node, a: ("full", [], {"shape": (), "value": a["s"]}),
    }.items()
    for name in names.split()
}  # fmt: skip
ALIASES = {
    "multiply": "mul", "divide": "div", "true_divide": "div", "subtract": "sub", "negative": "neg",
    "absolute": "abs", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
    "not_equal": "ne", "clip": "clamp",
}  # fmt: skip
RULES |= {f"aten.{alias}": RULES[f"aten.{name}"] for alias, name in ALIASES.items()}
