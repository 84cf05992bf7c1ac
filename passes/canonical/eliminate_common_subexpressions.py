"""eliminate-common-subexpressions: compute the same thing once, and keep equal weights once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result
from .parts.request import contents, request


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """Merge nodes that do the same to the same operands, and weights with equal contents.

            a = Add(x, w); b = Add(w, x); y = Mul(a, b)
        ->  a = Add(x, w); y = Mul(a, a)

    Operands of commutative operators are compared in either order. Random operators, training dropout and
    nodes with subgraphs are left alone, and so is an fx graph in which anything writes in place.
    """

    name: ClassVar[str] = "eliminate-common-subexpressions"
    source: ClassVar = None
    target: ClassVar = None
    effect: ClassVar = Exact(1e-6)

    def run(self, program: Program, context: Context) -> Result:
        if program.dialect == "fx":
            from .parts.common_subexpressions_fx import merge_fx

            nodes, note = merge_fx(program.graph, context)
            return Result(program, nodes > 0, {"nodes merged": nodes}, (note,) if note else ())
        weights = _merge_weights(program.graph.graph, context)
        nodes = _merge_nodes(program.graph, context)
        return Result(program, nodes + weights > 0, {"nodes merged": nodes, "weights merged": weights})


def _merge_weights(graph: Any, context: Context) -> int:
    """Equal initializers become one. Contents are read only where type, shape and a sample agree."""
    first: dict[Hashable, Any] = {}
    merged = 0
    for name, value in list(graph.initializers.items()):
        if value.is_graph_input() or value.is_graph_output() or _lazy(value.const_value):
            continue
        twin = _find(first, value.const_value, value)
        if twin is not value and context.allow(f"merge weight {name} into {twin.name}"):
            value.replace_all_uses_with(twin)
            del graph.initializers[name]
            merged += 1
    return merged


def _lazy(tensor: Any) -> bool:
    """Whether reading means computing: such weights were compared before they were transformed."""
    import onnx_ir

    return tensor is None or isinstance(tensor, onnx_ir.LazyTensor)


def _find(first: dict[Hashable, Any], tensor: Any, value: Any) -> Any:
    """The first value with these contents, which is `value` itself if there is none yet."""
    key = (tensor.dtype, tuple(tensor.shape), _sample(tensor))
    for twin in first.setdefault(key, []):
        if twin.const_value is tensor or contents(twin.const_value) == contents(tensor):
            return twin
    first[key].append(value)
    return value


def _sample(tensor: Any) -> bytes:
    """A few hundred elements spread over the tensor."""
    if tensor.dtype.is_string():
        return b""
    flat = tensor.numpy().reshape(-1)
    return flat[:: max(1, flat.size // 256)].tobytes()


def _merge_nodes(model: Any, context: Context) -> int:
    from ...ir.onnx.graph import Editor

    editor = Editor(model)
    first: dict[Hashable, Any] = {}
    merged = 0
    for node in model.graph:
        key = request(node)
        twin = node if key is None else first.setdefault(key, node)
        if twin is node or not context.allow(
            f"merge {node.op_type} {node.outputs[0].name} into {twin.outputs[0].name}"
        ):
            continue
        for old, new in zip(node.outputs, twin.outputs, strict=True):
            editor.replace(old, new)
        model.graph.remove(node, safe=True)
        merged += 1
    return merged
