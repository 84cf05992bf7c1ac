"""eliminate-common-subexpressions: compute the same thing once, and keep equal weights once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result

COMMUTATIVE = {"Add", "Mul", "And", "Or", "Xor", "Equal", "Max", "Min", "Sum", "Mean"}
RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}


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
        if twin.const_value is tensor or _contents(twin.const_value) == _contents(tensor):
            return twin
    first[key].append(value)
    return value


def _sample(tensor: Any) -> bytes:
    """A few hundred elements spread over the tensor."""
    if tensor.dtype.is_string():
        return b""
    flat = tensor.numpy().reshape(-1)
    return flat[:: max(1, flat.size // 256)].tobytes()


def _contents(tensor: Any) -> Any:
    return tuple(tensor.string_data()) if tensor.dtype.is_string() else memoryview(tensor.tobytes())


def _merge_nodes(model: Any, context: Context) -> int:
    from ...ir.onnx.graph import Editor

    editor = Editor(model)
    first: dict[Hashable, Any] = {}
    merged = 0
    for node in model.graph:
        key = _key(node)
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


def _key(node: Any) -> Hashable | None:
    """Equal for nodes that compute the same; None for those that may not be merged."""
    if node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.inputs) > 2):
        return None
    attributes: list[Hashable] = []
    for name, attribute in sorted(node.attributes.items()):
        value = _hashable(attribute)
        if value is None:
            return None
        attributes.append((name, value))
    operands = [id(value) for value in node.inputs]
    if node.op_type in COMMUTATIVE and node.domain == "":
        operands.sort()
    # An output nobody asked for is a different request: LayerNormalization with and without its mean.
    present = tuple(bool(value.name) for value in node.outputs)
    return (node.op_identifier(), tuple(operands), tuple(attributes), present)


def _hashable(attribute: Any) -> Hashable | None:
    kind = attribute.type.name
    if attribute.is_ref() or kind in ("GRAPH", "GRAPHS", "TENSORS", "SPARSE_TENSOR", "SPARSE_TENSORS"):
        return None
    if kind == "TENSOR":
        tensor = attribute.value
        return (kind, tensor.dtype, tuple(tensor.shape), bytes(_contents(tensor)))
    return (kind, repr(attribute.value))  # repr keeps 0.0 and -0.0, 1 and 1.0 apart
