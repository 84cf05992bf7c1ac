"""Rows that are NaN because every key is hidden from them, and keeping them out of everyone's scale.

Where a mask is made of -inf, a query that may look at nothing (a padded position in a local window, or
before the first token of a left-padded row) gets softmax(-inf, ..., -inf) = NaN. In float the NaN stays in
its row, which is padding. One scale for the whole tensor would carry it to every token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...ir.execute import execute_onnx
from ...ir.onnx import Editor, outer_values
from ...ir.probe import probes
from ...ir.program import Program
from ..base import Context
from .sites import Site

# What turns hidden scores into probabilities; ReduceMax is how a softmax written out begins.
_SOFTMAX = frozenset({"Softmax", "ReduceMax", "Attention", "MultiHeadAttention", "GroupQueryAttention"})
_MASKS = ("attention_mask", "decoder_attention_mask")


def nan_sources(program: Program, context: Context) -> frozenset[str]:
    """Names of the values that are NaN in a row whose keys are all hidden: those computed from -inf.

    Whether -inf occurs is seen on probe inputs, whose masks hide keys in every usual pattern.
    """
    if not any(spec.role in _MASKS for spec in program.inputs):
        return frozenset()
    editor = Editor(program.graph.clone())
    nodes = [node for node in editor.graph if node.op_type in _SOFTMAX]
    smallest: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        for value in node.inputs:
            if value is None or value.producer() is None or value.dtype not in (None, ir.DataType.FLOAT):
                continue
            if value not in smallest:
                name, after = f"{value.name}.smallest", value.producer()
                least = editor.node("ReduceMin", [value], name, after=after, attrs={"keepdims": 0}).outputs[0]
                least.type, least.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
                smallest[value] = least
    if not smallest:
        return frozenset()
    editor.graph.outputs.extend(smallest.values())
    names = [str(value.name) for value in smallest.values()]
    results = execute_onnx(editor.model, names, probes(program, context.seed), context.threads)
    hidden = {
        value
        for value, least in smallest.items()
        if any(np.isneginf(found[str(least.name)]) for found in results)
    }
    return frozenset(str(node.outputs[0].name) for node in nodes if hidden.intersection(node.inputs))


def needing_guard(
    graph: ir.Graph, sites: Sequence[Site], in_int8: Sequence[bool], sources: frozenset[str]
) -> set[int]:
    """Numbers of the int8 sites that a NaN row reaches; guarded, their products are finite."""
    number_of = {product.node: n for n, site in enumerate(sites) if in_int8[n] for product in site.products}
    found: set[int] = set()
    reached: set[ir.Value] = set()
    for node in graph:
        touched = [v for v in (*node.inputs, *outer_values(node)) if v in reached]
        number = number_of.get(node)
        if touched and number is not None:
            found.add(number)
        if node.outputs[0].name in sources or (touched and number is None and not _stops(node, reached)):
            reached.update(node.outputs)
    return found


def _stops(node: ir.Node, reached: set[ir.Value]) -> bool:
    """Whether a node's results are finite whatever the row: sizes, and Where(IsNaN(x), 0, x)."""
    if node.op_type in ("Shape", "Size", "IsNaN"):
        return True
    if node.op_type != "Where" or node.inputs[0] is None:
        return False
    test = node.inputs[0].producer()
    return test is not None and test.op_type == "IsNaN" and node.inputs[2] is test.inputs[0]
