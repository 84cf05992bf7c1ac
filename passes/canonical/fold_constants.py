"""fold-constants: compute now what does not depend on the inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.onnx.graph import OnnxView
from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result
from .parts.evaluate import Evaluation, foldable, nbytes
from .parts.request import request

_FEW = 8  # bytes: so little is a number or two, no weight
_LAYOUT = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}  # the same numbers again


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes whose operands are all known by their results, as weights of the same names.

            a = Div(one, two); b = Mul(a, row); y = Add(x, b)
        ->  y = Add(x, b)                       (b is a weight)

    Also folded are sizes: Shape and the arithmetic on it, wherever the sizes asked for are fixed. Constant
    nodes become weights. What is done several times to one weight (transposes of layers that share it) is one
    weight afterwards, and a matrix of any size that something else reads (the table of a tied head) is not
    stored a second time in another layout. A node on a weight larger than max_bytes (a transpose, a cast) is
    folded when nothing else uses that weight and the result is no larger; the result is then computed when it
    is read, one tensor at a time, so that no second copy of the weights is ever held. DequantizeLinear stays,
    and so does what makes more bytes of codes or of narrow floats: folding it would undo the quantization.

    max_bytes: largest result, in bytes, that may be added to the model.
    """

    name: ClassVar[str] = "fold-constants"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    max_bytes: int = 1 << 20

    def run(self, program: Program, context: Context) -> Result:
        counts, notes = fold(program.graph, self.max_bytes, context)
        statistics = {
            name: counts[name] for name in ("nodes folded", "weights transformed", "constants lifted")
        }
        return Result(program, counts.total() > 0, statistics, tuple(notes))


def fold(model: ir.Model, max_bytes: int, context: Context) -> tuple[Counter[str], list[str]]:
    """Fold a model's main graph in place; how much of what was done, and a sentence for each miss."""
    sized = any(node.op_type == "Shape" for node in model.graph)
    folder = _Folder(model, max_bytes, OnnxView(model) if sized else None)
    for node in model.graph:
        if any(value.is_graph_output() for value in node.outputs):
            continue  # a graph output cannot be a weight
        try:
            found = folder.results(node)
        except _StaysError as reason:
            folder.notes.append(f"{node.op_type} '{node.outputs[0].name}' stays: {reason}")
            continue
        if found is not None and context.allow(f"fold {node.op_type} {node.outputs[0].name}"):
            kind, tensors = found
            folder.put(node, tensors)
            folder.counts[kind] += 1
    folder.drop_unused()
    return folder.counts, folder.notes


class _StaysError(Exception):
    """A node with known operands is not folded; says why."""


class _Folder:
    def __init__(self, model: ir.Model, max_bytes: int, view: OnnxView | None) -> None:
        self.graph = model.graph
        self.opset = model.graph.opset_imports.get("", 1)
        self.max_bytes = max_bytes
        self.view = view
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        self.operands: dict[ir.Value, None] = {}
        self.done: dict[Hashable, list[ir.Value]] = {}

    def results(self, node: ir.Node) -> tuple[str, list[ir.TensorProtocol]] | None:
        """What kind of fold a node allows, and its results; None if it must be computed at each call.

        Raises:
            _StaysError: it could be computed now, and had better not be.
        """
        if node.op_type == "Constant" and node.domain == "":
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
            return None if tensor is None else ("constants lifted", [tensor])
        sizes = self._sizes(node)
        if sizes is not None:
            return "nodes folded", [ir.Tensor(sizes, name=node.outputs[0].name)]
        if not node.inputs or not foldable(node):
            return None
        operands: list[ir.TensorProtocol | None] = []
        for value in node.inputs:
            tensor = None if value is None else _constant(value)
            if value is not None and (tensor is None or tensor.dtype.is_string()):
                return None
            operands.append(tensor)
        return self._evaluated(node, operands)

    def _evaluated(
        self, node: ir.Node, operands: list[ir.TensorProtocol | None]
    ) -> tuple[str, list[ir.TensorProtocol]] | None:
        evaluation = Evaluation(node, operands, self.opset)
        results = evaluation.results()
        if results is None:
            raise _StaysError("the shape of its result is not known before it is computed")
        added = sum(nbytes(*result) for result in results)
        if any(t is not None and _stored_small(t) and t.nbytes < added for t in operands):
            return None
        large = [v for v in node.inputs if v is not None and v.const_value.nbytes > self.max_bytes]  # type: ignore[union-attr]
        replaces = len(large) == 1 and len(results) == 1 and added <= large[0].const_value.nbytes  # type: ignore[union-attr]
        weight = large[0] if replaces else _matrix(node)
        if weight is not None and _other_uses(weight):
            raise _StaysError(f"its weight '{weight.name}' has other uses")
        if replaces:
            return "weights transformed", [evaluation.lazy(*results[0])]
        if large or added > self.max_bytes:
            raise _StaysError(f"it would add {added:.0f} bytes of weights")
        try:
            computed = evaluation.compute()
        except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError) as error:
            raise _StaysError(f"the reference implementation fails: {error}") from error
        named = zip(node.outputs, results, computed, strict=True)
        return "nodes folded", [ir.Tensor(array, dtype=r[0], name=v.name) for v, r, array in named]

    def _sizes(self, node: ir.Node) -> np.ndarray | None:
        """The result of a node of shape arithmetic whose every element is fixed."""
        if self.view is None or len(node.outputs) != 1:
            return None
        sizes = self.view.sizes(node.outputs[0])
        if sizes is None or not all(isinstance(size, int) for size in sizes):
            return None
        value = self.view.of(node.outputs[0])
        if value.dtype not in ("int64", "int32", "bool") or value.shape is None or len(value.shape) > 1:
            return None
        return np.array(sizes, value.dtype).reshape([len(sizes)] * len(value.shape))

    def put(self, node: ir.Node, tensors: list[ir.TensorProtocol]) -> None:
        """Weights in place of a node's results: those of an equal node before it, where there is one."""
        self.operands.update(dict.fromkeys(value for value in node.inputs if value is not None))
        known = bool(node.inputs) and all(value is None or _constant(value) for value in node.inputs)
        asked = request(node) if known else None
        if asked in self.done:
            for value, twin in zip(node.outputs, self.done[asked], strict=True):
                value.replace_all_uses_with(twin)
            self.graph.remove(node, safe=True)
            return
        fresh = []
        for value, tensor in zip(node.outputs, tensors, strict=True):
            shape, kind = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            fresh.append(ir.Value(name=value.name, shape=shape, type=kind, const_value=tensor))
            value.replace_all_uses_with(fresh[-1])
        self.graph.remove(node, safe=True)
        for value in fresh:
            if value.name:
                self.graph.register_initializer(value)
        if asked is not None:
            self.done[asked] = fresh

    def drop_unused(self) -> None:
        """Weights that only folded nodes used go. Once, at the end: counting uses takes time for each use."""
        for value in self.operands:
            kept = value.uses() or value.is_graph_input() or value.is_graph_output()
            if not kept and self.graph.initializers.get(value.name or "") is value:
                del self.graph.initializers[value.name or ""]


def _stored_small(tensor: ir.TensorProtocol) -> bool:
    """Whether a weight is of a type that is there to be small: integers of a byte or less, half floats."""
    kind = tensor.dtype
    narrow = kind != ir.DataType.BOOL and kind.bitwidth <= (16 if kind.is_floating_point() else 8)
    return narrow and tensor.nbytes > _FEW


def _matrix(node: ir.Node) -> ir.Value | None:
    """The weight that a node gives once more in another layout, where it is more than a vector."""
    weight = node.inputs[0] if node.op_type in _LAYOUT else None
    if weight is None or weight.const_value is None:
        return None
    return weight if sum(size > 1 for size in weight.const_value.shape.numpy()) > 1 else None


def _other_uses(weight: ir.Value) -> bool:
    """Whether nodes ask for a weight that don't all ask for the same of it."""
    return len({request(use.node) or id(use.node) for use in weight.uses()}) > 1


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer that a caller cannot override."""
    return value.const_value if value.is_initializer() and not value.is_graph_input() else None
