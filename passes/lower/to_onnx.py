"""FX to ONNX, through torch's own exporter, with names and weights kept in hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ...ir.errors import PassError
from ...ir.host.quiet import quiet
from ...ir.onnx.lazy import lazy
from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result
from .parts.codes import store_codes

OPSET = 20  # the first with a Gelu of its own
SMALL = 1 << 28  # bytes of transposed weights that are kept once they were asked for


@dataclass(frozen=True)
class ToOnnx(Pass):
    """Lower the traced graph to ONNX.

            fx: %y = aten.linear(%x, %w, %b)
        ->  onnx: y = Add(MatMul(x, w), b)

    The graph is exported anew, with the program's symbolic axes, to opset 20: LayerNormalization and Gelu
    stay whole. Inputs, outputs, axes and weights carry the program's own names; a weight that is only ever
    read transposed, as a linear layer's is, is stored so, lazily and under its parameter's name; of a stack
    of experts each is stored by itself, under that name and its number. Constants are folded as long as no
    weight takes part, so nothing of a weight's size is computed or copied. What is read transposed is turned
    each time that it is asked for, or once where all of it is small.
    """

    name = "to-onnx"
    source = "fx"
    target = "onnx"
    effect = Exact(1e-4)

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.fx.mode import set_mode
        from .parts.grouped import store_apart

        set_mode(program.graph, training=False)
        model = _export(program)
        store_apart(model)
        transposed = _store_transposed(model)
        store_codes(model)
        common.ClearMetadataAndDocStringPass()(model)
        statistics = {"nodes": len(model.graph), "weights stored transposed": transposed}
        return Result(program.with_graph(model, "onnx"), True, statistics)


def _export(program: Program) -> ir.Model:
    import torch
    from onnxscript.optimizer import optimize_ir

    from ...ir.fx.lifted import lifted
    from .parts.fake_quant import lower_fake_quant
    from .parts.rules import by_operator
    from .parts.sdpa import spell_masks

    graph = spell_masks(program)
    lower_fake_quant(graph)
    with quiet(), torch.no_grad():
        model = _converted(lifted(graph, program.inputs, program.symbols, program.graph))
        _name(model, program)
        weights = set(model.graph.initializers.values())
        with by_operator():
            optimize_ir(model, should_fold=lambda node: False if weights.intersection(node.inputs) else None)
    return model


def _converted(program: Any) -> ir.Model:
    """torch's own conversion.

    Raises:
        PassError: ONNX has no spelling of an operator, which is named.
    """
    import torch

    from .parts import unspelled
    from .parts.promotion import as_stated
    from .parts.registry import read_once
    from .parts.translations import translations

    unspelled.spell(program)
    whole = unspelled.decomposed(program, OPSET)
    try:
        again = patch.object(program, "run_decompositions", lambda _: program) if whole else nullcontext()
        with again, read_once(OPSET), as_stated():
            found = torch.onnx.export(
                program, dynamo=True, optimize=False, verbose=False, opset_version=OPSET,
                custom_translation_table=translations(),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise PassError(_reason(error)) from error
    assert found is not None  # it is None only where a file is asked for
    return found.model


def _reason(error: BaseException) -> str:
    """Which operator could not be converted, and why, out of a chain of reports in colour."""
    from ...ir.fx.reasons import said

    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    words = said(chain[-1])
    for each in chain:
        if found := re.search(r"node %(\w+) .*?target=torch\.ops\.([\w.]+)", str(each)):
            node, operator = found.groups()
            missing = "No ONNX function found" in words or "No decompositions" in words
            why = "ONNX has nothing like it and torch's exporter no other spelling" if missing else words
            return f"the operator {operator} (node {node}) cannot be written in ONNX: {why}"
    return f"torch's exporter cannot write the graph in ONNX: {words}"


def _name(model: ir.Model, program: Program) -> None:
    """Puts the program's names on inputs, outputs and symbolic axes."""
    _own_outputs(model)
    symbols: dict[str, str] = {}
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    taken = {v.name: v for v in (*values, *model.graph.initializers.values())}
    wished = [
        *zip(model.graph.inputs, (spec.name for spec in program.inputs), strict=True),
        *zip(model.graph.outputs, program.outputs, strict=True),
    ]
    for value, name in wished:
        if name in taken and taken[name] is not value:
            taken[name].name = f"{name}.inner"
    for value, name in wished:
        value.name = name
    for value, spec in zip(model.graph.inputs, program.inputs, strict=True):
        for ours, theirs in zip(spec.shape, value.shape or (), strict=True):
            if isinstance(theirs, ir.SymbolicDim) and theirs.value is not None:
                symbols[theirs.value] = str(ours)
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, symbols) for dim in value.shape])


def _own_outputs(model: ir.Model) -> None:
    """An output that is an input, a weight or another output becomes a value of its own."""
    graph = model.graph
    for place, value in enumerate(graph.outputs):
        if value.producer() is None or value in graph.outputs[:place]:
            node = ir.node("Identity", [value])
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[place] = node.outputs[0]


def _renamed(dim: int | ir.SymbolicDim, symbols: Mapping[str, str]) -> Any:
    """An axis size, or an expression of them ("4*s53"), in the program's symbols."""
    if isinstance(dim, int) or dim.value is None:
        return dim
    return re.sub(r"\b[a-z]+\d+\b", lambda found: symbols.get(found[0], found[0]), dim.value)


def _store_transposed(model: ir.Model) -> int:
    """Turns Transpose(weight) into a weight, where nothing reads it the other way round.

    A weight that is read both ways (tied to an embedding) keeps its Transpose and its single copy.
    """
    turned: list[ir.LazyTensor] = []
    for weight in list(model.graph.initializers.values()):
        readers = [use.node for use in weight.uses()]
        perms = {tuple(n.attributes.get_ints("perm", ())) for n in readers if n.op_type == "Transpose"}
        tensor = weight.const_value
        kept = weight.is_graph_output() or any(node.op_type != "Transpose" for node in readers)
        if tensor is None or len(perms) != 1 or kept:
            continue
        perm = perms.pop() or tuple(reversed(range(len(tensor.shape))))
        if perm == tuple(range(len(perm))):
            continue
        turned.append(_transposed(tensor, perm))
        weight.const_value, weight.shape = turned[-1], turned[-1].shape
        for node in readers:
            node.outputs[0].replace_all_uses_with(weight)
            model.graph.remove(node, safe=True)
    small = sum(tensor.nbytes for tensor in turned) <= SMALL
    for tensor in turned:
        tensor.cache = small
    return len(turned)


def _transposed(tensor: ir.TensorProtocol, perm: tuple[int, ...]) -> ir.LazyTensor:
    """The tensor with its axes in another order, written out only when it is asked for its bytes."""

    def turn() -> np.ndarray:
        # In order: NumPy writes any other array to a file number by number.
        array = np.ascontiguousarray(tensor.numpy().transpose(perm))
        array.flags.writeable = False  # it may be kept, and clones share it
        return array

    sizes = tensor.shape.numpy()
    return lazy(turn, tensor.dtype, [sizes[axis] for axis in perm], tensor.name)
